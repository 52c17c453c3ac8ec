from .base.errors import LayoutError
from .data.datasets import DATASETS, open_dataset
from .models.registry import MODELS, make_model
from .protocols.folds import Fold
from .protocols.registry import PROTOCOLS, make_protocol
from .run.cells import CellSpec, run_cell
from .samples.featuresets import load_features
from .samples.samples import Samples, make_samples
from .samples.scaling import Scaling
from .signals.features import differential_entropy
from .signals.smoothing import lds, moving_average
from .twins.twin import write_twin
