"""Teacher and student: one file per theory, in the order of the documentation."""

from ._soft_committee import SoftCommitteeSystem

SYSTEMS = (SoftCommitteeSystem(),)
