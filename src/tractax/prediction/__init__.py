"""The main job: predict a training run on real data before it happens, then simulate it and compare."""

from ._data import DataSet as DataSet
from ._data import load_data as load_data
from ._data import load_digits as load_digits
from ._figure import draw as draw
from ._initialise import initialise as initialise
from ._numbers import save_numbers as save_numbers
from ._predict import Forecast as Forecast
from ._predict import Outcome as Outcome
from ._predict import Reading as Reading
from ._predict import forecast as forecast
from ._predict import simulate as simulate
