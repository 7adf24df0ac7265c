from .bank import AtlasBank as AtlasBank
from .bank_building import (
    append_to_atlas_bank as append_to_atlas_bank,
    build_atlas_bank as build_atlas_bank,
)
from .bank_verification import verify_atlas_bank as verify_atlas_bank
from .embedded import default_atlases as default_atlases
from .folder import open_atlas_folder as open_atlas_folder
from .index import AtlasIndex as AtlasIndex
from .ranking import (
    RankedAtlas as RankedAtlas,
    normalized_mutual_information as normalized_mutual_information,
    rank_atlases as rank_atlases,
    with_metadata as with_metadata,
)
from .ranking_by_image import rank_atlases_by_image as rank_atlases_by_image
