"""Measurements: how well theory and simulation agree, and what a network has learned."""

from ._activations import AbstractActivation as AbstractActivation
from ._activations import Custom as Custom
from ._activations import Erf as Erf
from ._activations import Linear as Linear
from ._activations import ReLU as ReLU
from ._compare import Comparison as Comparison
from ._compare import compare as compare
from ._crossing import crossing_times as crossing_times
from ._fourier import frequency_power as frequency_power
from ._fourier import inverse_participation_ratio as inverse_participation_ratio
from ._largest_margin import MaxMargin as MaxMargin
from ._largest_margin import largest_margin as largest_margin
from ._lyapunov_exponent import lyapunov_exponent as lyapunov_exponent
from ._residual import residual as residual
from ._scaling import Scaling as Scaling
from ._scaling import scaling as scaling
from ._similarity import cosine_similarity as cosine_similarity
from ._similarity import representation_similarity as representation_similarity
from ._step_commutator import gradient_bracket as gradient_bracket
from ._step_commutator import step_commutator as step_commutator
from ._subspace_alignment import Alignment as Alignment
from ._subspace_alignment import subspace_alignment as subspace_alignment
from ._tangent_kernel import tangent_kernel as tangent_kernel
from ._trajectory_pca import TrajectoryPCA as TrajectoryPCA
from ._trajectory_pca import trajectory_pca as trajectory_pca
