"""The public names and where they come from, for type checkers and editors."""

from captioner.bulk.alt import alt_texts as alt_texts
from captioner.bulk.apply import apply_captions as apply_captions
from captioner.bulk.cluster import caption_on_cluster as caption_on_cluster
from captioner.bulk.find import open_index as open_index
from captioner.bulk.propose import propose as propose
from captioner.bulk.read import read_files as read_files
from captioner.bulk.run import caption_files as caption_files
from captioner.bulk.watch import watch_folders as watch_folders
from captioner.data.shapes import make_shapes as make_shapes
from captioner.data.survey import check_data as check_data
from captioner.errors import CaptionerError as CaptionerError
from captioner.errors import CheckpointError as CheckpointError
from captioner.errors import DataError as DataError
from captioner.errors import DeviceError as DeviceError
from captioner.errors import ImageError as ImageError
from captioner.errors import InputError as InputError
from captioner.errors import OptionError as OptionError
from captioner.errors import OutputError as OutputError
from captioner.errors import TrainingError as TrainingError
from captioner.evaluation.compare import compare as compare
from captioner.evaluation.retrieval import evaluate_retrieval as evaluate_retrieval
from captioner.evaluation.run import evaluate as evaluate
from captioner.export.folder import export_model as export_model
from captioner.export.web import export_web as export_web
from captioner.inference.captioner import Captioner as Captioner
from captioner.inference.captioner import load as load
from captioner.inference.results import Caption as Caption
from captioner.network.header import models as models
from captioner.options import DecodeOptions as DecodeOptions
from captioner.options import MetadataOptions as MetadataOptions
from captioner.options import ServeOptions as ServeOptions
from captioner.pictures.unfamiliar import make_unfamiliar as make_unfamiliar
from captioner.server.run import serve as serve
from captioner.training.config import TrainConfig as TrainConfig
from captioner.training.run import train as train

__version__: str
__all__: list[str]
