"""Studies of settled questions: ``all`` leaves them out; their tables stay and can be measured again."""
