"""HRESULTs as ported code reads them: numbers that print their name (documents: winerror.h)."""

# ruff: noqa: N802 (the documents' names)

from __future__ import annotations

from broker import errors, results
from broker.errors import TympanError
from broker.results import SUCCESS_ONLY, SUCCESS_TOO, Code, Result


def _names() -> dict[int, str]:
    """Every status that Tympan gives, by its number; ``E:`` and ``S:`` tell severities apart."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    known = [each for each in vars(results).values() if isinstance(each, Result)]
    known += [kind.result for kind in kinds if issubclass(kind, TympanError)]
    names = {result.hresult: result.name for result in known}
    for code in Code:
        if code not in SUCCESS_ONLY:
            names[Result.error(code).hresult] = f"E:{code.name}"
        if code in SUCCESS_ONLY | SUCCESS_TOO:
            names[Result.success(code).hresult] = f"S:{code.name}"
    return names | {
        0x8000_4002: "E_NOINTERFACE",
        0x8000_4003: "E_POINTER",
        results.UNEXPECTED.hresult: "E_UNEXPECTED",
        results.ACCESS_DENIED.hresult: "E_ACCESSDENIED",
        results.INVALID_HANDLE.hresult: "E_HANDLE",
        results.OUT_OF_MEMORY.hresult: "E_OUTOFMEMORY",
        results.INVALID_ARGUMENT.hresult: "E_INVALIDARG",
    }


_NAMES = _names()


class HRESULT(int):
    """A status of 32 bits; the highest one set means failure (R135).

    Negative numbers, as C prints failures, are taken for what they are. Compare with ``==``, ask
    :func:`SUCCEEDED`; the truth of the number itself says nothing, as in C.
    """

    def __new__(cls, value: int) -> HRESULT:
        return super().__new__(cls, value & 0xFFFF_FFFF)

    @property
    def name(self) -> str:
        """The documents' name, ``E:`` or ``S:`` before those of this interface."""
        return _NAMES.get(self, f"HRESULT of facility {self >> 16 & 0x1FFF}")

    def __repr__(self) -> str:
        return f"{self.name} (0x{int(self):08X})"

    __str__ = __repr__


def SUCCEEDED(hresult: int) -> bool:
    """Whether the severity bit is clear."""
    return not hresult & results.SEVERITY_ERROR


def FAILED(hresult: int) -> bool:
    """Whether the severity bit is set."""
    return not SUCCEEDED(hresult)


def HRESULT_CODE(hresult: int) -> int:
    """The low 16 bits, to compare with a ``PrintAsyncNotifyError``. Ask for the severity first."""
    return hresult & 0xFFFF


def MAKE_HRESULT(severity: int, facility: int, code: int) -> HRESULT:
    """Severity (0 success, 1 error), facility and code as one status."""
    return HRESULT(severity << 31 | facility << 16 | code)


SEVERITY_SUCCESS = 0
SEVERITY_ERROR = 1
"""As :func:`MAKE_HRESULT` takes it: the one bit, not the mask."""

S_OK = HRESULT(0)
E_NOINTERFACE = HRESULT(0x8000_4002)
E_POINTER = HRESULT(0x8000_4003)
E_UNEXPECTED = HRESULT(results.UNEXPECTED.hresult)
E_ACCESSDENIED = HRESULT(results.ACCESS_DENIED.hresult)
E_HANDLE = HRESULT(results.INVALID_HANDLE.hresult)
E_INVALIDARG = HRESULT(results.INVALID_ARGUMENT.hresult)
