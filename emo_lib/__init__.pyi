from .base.errors import LayoutError
from .data.datasets import DATASETS, open_dataset
from .models.registry import MODELS, make_model
from .papers.registry import PAPERS
from .protocols.folds import Fold
from .protocols.registry import PROTOCOLS, make_protocol
from .run.audit import audit
from .run.cells import run_cell
from .run.evaluate import evaluate
from .run.results import CellResult, load_results, read_predictions
from .run.spec import CellSpec
from .samples.featuresets import load_features
from .samples.samples import Samples, make_samples
from .samples.scaling import Scaling
from .signals.features import BANDS, differential_entropy, psd
from .signals.images import to_grid, valid_mask
from .signals.smoothing import lds, moving_average
from .twins.twin import write_twin
