"""The kernels of ``bias_and_norm.py``. Importing this module requires Triton."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def add_to_rows(out, bias, rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A tile of a matrix in half precision, to whose rows an fp32 vector is added."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (row < rows) & (column < width)
    where = out + row.to(tl.int64) * width + column
    added = tl.load(where, mask=inside).to(tl.float32)
    added += tl.load(bias + column, mask=column < width)
    tl.store(where, added.to(out.dtype.element_ty), mask=inside)


@triton.jit
def normalize_rows(x, weight, bias, out, width, eps, COLUMNS: tl.constexpr):
    """A row of a matrix in half precision, normalized with fp32 vectors; COLUMNS ≥ width."""
    column = tl.arange(0, COLUMNS)
    inside = column < width
    start = tl.program_id(0).to(tl.int64) * width
    value = tl.load(x + start + column, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    gain = tl.load(weight + column, mask=inside)
    result = centred * scale * gain + tl.load(bias + column, mask=inside)
    tl.store(out + start + column, result.to(out.dtype.element_ty), mask=inside)
