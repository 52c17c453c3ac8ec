from .base.errors import LayoutError
from .data.datasets import DATASETS, open_dataset
from .models.registry import MODELS, make_model
from .protocols.cross_session import PROTOCOLS, Fold, make_protocol
from .run.cells import CellSpec, run_cell
from .samples.featuresets import load_features
from .signals.features import differential_entropy
from .signals.smoothing import lds, moving_average
from .twins.twin import write_twin
