"""From an image to labels and landmarks: weights, preprocessing, orientation, prediction."""
