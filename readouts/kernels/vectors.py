"""Vectors of LANES numbers in registers, for functions compiled by Numba.

Arithmetic and comparisons are written with operators and work lane by lane; LLVM lowers them to the
widest instructions of the machine. A number beside a vector stands for a vector of it. `Matrix` is
an array's memory without its reference count, which costs more than a vector's work when it goes from
function to function; `load` and `store` read and write LANES columns of a row of it.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_INTEGERS = {bits: ir.IntType(bits) for bits in (1, 8, 16, 32, 64)}


class Vector(types.Type):
    """The type of LANES numbers of one machine type."""

    def __init__(self, element: types.Type) -> None:
        self.element = element
        super().__init__(name=f"vector({element})")

    @property
    def llvm(self) -> ir.VectorType:
        """The type in LLVM's eyes."""
        if self.element == types.float64:
            return ir.VectorType(ir.DoubleType(), LANES)
        if self.element == types.float32:
            return ir.VectorType(ir.FloatType(), LANES)
        return ir.VectorType(_INTEGERS[getattr(self.element, "bitwidth", 1)], LANES)

    @property
    def is_float(self) -> bool:
        """Whether the lanes are floating-point numbers."""
        return isinstance(self.element, types.Float)


@register_model(Vector)
class _InRegisters(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


DOUBLES, FLOATS, MASK = Vector(types.float64), Vector(types.float32), Vector(types.boolean)
BITS_OF = {FLOATS: Vector(types.int32), DOUBLES: Vector(types.int64)}


def _constant(vector: Vector, value: float) -> ir.Constant:
    return ir.Constant(vector.llvm, [value] * LANES)


@intrinsic
def fill(typing_context, vector, number):
    """Return a vector, of the type of another, with the same number in all lanes."""

    def emit(context, builder, signature, arguments):
        lane = context.cast(builder, arguments[1], number, vector.element)
        first = builder.insert_element(ir.Constant(vector.llvm, ir.Undefined), lane, _INTEGERS[32](0))
        places = ir.Constant(ir.VectorType(_INTEGERS[32], LANES), [0] * LANES)
        return builder.shuffle_vector(first, first, places)

    return vector(vector, number), emit


def _lane_by_lane(emit: Callable[..., Any], result: Callable[..., Any] | None = None) -> Any:
    """Make a function of two equal vectors, whose result is of their type unless `result` tells another."""

    @intrinsic
    def combine(typing_context, a, b):
        returned = a if result is None else result(a)
        return returned(a, b), lambda context, builder, signature, values: emit(builder, a, *values)

    return combine


def _operator(symbol: Any, emit: Callable[..., Any], result: Callable[..., Any] | None = None) -> None:
    combine = _lane_by_lane(emit, result)

    @overload(symbol)
    def overloaded(a, b):
        if not isinstance(a, Vector):
            return None
        if a == b:
            return lambda a, b: combine(a, b)
        return lambda a, b: combine(a, fill(a, b))


def _compared(sign: str) -> Callable[..., Any]:
    return lambda builder, vector, a, b: (
        builder.fcmp_ordered(sign, a, b) if vector.is_float else builder.icmp_signed(sign, a, b)
    )


_operator(operator.add, lambda b, v, x, y: b.fadd(x, y) if v.is_float else b.add(x, y))
_operator(operator.sub, lambda b, v, x, y: b.fsub(x, y) if v.is_float else b.sub(x, y))
_operator(operator.mul, lambda b, v, x, y: b.fmul(x, y) if v.is_float else b.mul(x, y))
_operator(operator.truediv, lambda b, v, x, y: b.fdiv(x, y))
_operator(operator.and_, lambda b, v, x, y: b.and_(x, y))
_operator(operator.or_, lambda b, v, x, y: b.or_(x, y))
_operator(operator.xor, lambda b, v, x, y: b.xor(x, y))
_operator(operator.rshift, lambda b, v, x, y: b.lshr(x, y))
_operator(operator.lshift, lambda b, v, x, y: b.shl(x, y))
for _symbol, _sign in ((operator.eq, "=="), (operator.lt, "<"), (operator.gt, ">"), (operator.ge, ">=")):
    _operator(_symbol, _compared(_sign), lambda vector: MASK)

differs = _lane_by_lane(
    lambda b, v, x, y: b.fcmp_unordered("!=", x, y) if v.is_float else b.icmp_signed("!=", x, y),
    lambda vector: MASK,
)
above = _lane_by_lane(lambda b, v, x, y: b.icmp_unsigned(">", x, y), lambda vector: MASK)
signed_max = _lane_by_lane(lambda b, v, x, y: b.select(b.icmp_signed(">", x, y), x, y))
signed_min = _lane_by_lane(lambda b, v, x, y: b.select(b.icmp_signed("<", x, y), x, y))
unsigned_max = _lane_by_lane(lambda b, v, x, y: b.select(b.icmp_unsigned(">", x, y), x, y))
unsigned_min = _lane_by_lane(lambda b, v, x, y: b.select(b.icmp_unsigned("<", x, y), x, y))


@intrinsic
def where(typing_context, mask, a, b):
    """Return the lanes of a where the mask is set, of b elsewhere."""
    return a(mask, a, b), lambda context, builder, signature, values: builder.select(*values)


@intrinsic
def any_of(typing_context, mask):
    """Tell whether a lane of a mask is set."""

    def emit(context, builder, signature, values):
        lanes = builder.bitcast(values[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", lanes, ir.IntType(LANES)(0))

    return types.boolean(mask), emit


@intrinsic
def widen(typing_context, values):
    """Return float32 as float64, which changes nothing; float64 as it is."""
    return (
        DOUBLES(values),
        lambda context, builder, signature, arguments: (
            arguments[0] if values == DOUBLES else builder.fpext(arguments[0], DOUBLES.llvm)
        ),
    )


@intrinsic
def narrow(typing_context, values, like):
    """Round float64 to the type of another vector."""
    return (
        like(values, like),
        lambda context, builder, signature, arguments: (
            arguments[0] if like == DOUBLES else builder.fptrunc(arguments[0], like.llvm)
        ),
    )


@intrinsic
def bits_of(typing_context, values):
    """Read the bits of floating-point numbers as integers."""
    integers = BITS_OF[values]
    return integers(values), lambda c, builder, s, arguments: builder.bitcast(arguments[0], integers.llvm)


@intrinsic
def floats_of(typing_context, integers):
    """Read integers as the bits of floating-point numbers."""
    values = next(floats for floats, bits in BITS_OF.items() if bits == integers)
    return values(integers), lambda c, builder, s, arguments: builder.bitcast(arguments[0], values.llvm)


@intrinsic
def extend(typing_context, integers):
    """Return integers as int64."""
    longs = BITS_OF[DOUBLES]
    return (
        longs(integers),
        lambda c, builder, s, arguments: (
            arguments[0] if integers == longs else builder.sext(arguments[0], longs.llvm)
        ),
    )


class Matrix(NamedTuple):
    """The memory of an array [..., columns], row by row."""

    pointer: Any
    columns: int


@intrinsic
def pointer_to(typing_context, array):
    """Return the address of the first element of an array, which has to outlive it."""

    def emit(context, builder, signature, arguments):
        return context.make_array(array)(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), emit


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return the address of matrix[row, column]."""
    pointer, columns = (builder.extract_value(arguments[0], field) for field in range(2))
    row, column = (
        context.cast(builder, value, kind, types.intp)
        for value, kind in zip(arguments[1:3], signature.args[1:3], strict=True)
    )
    return builder.gep(pointer, [builder.add(builder.mul(row, columns), column)])


@intrinsic
def rows_from(typing_context, matrix, row):
    """Return the part of a matrix that starts at a row."""

    def emit(context, builder, signature, arguments):
        pointer, columns = (builder.extract_value(arguments[0], field) for field in range(2))
        start = builder.mul(context.cast(builder, arguments[1], row, types.intp), columns)
        return builder.insert_value(arguments[0], builder.gep(pointer, [start]), 0)

    return matrix(matrix, row), emit


def _element(matrix: Any) -> types.Type:
    return matrix.types[0].dtype


def _stored(matrix: Any) -> ir.Type:
    """Return the type of LANES elements of a matrix in memory."""
    if _element(matrix) == types.uint16:
        return ir.VectorType(ir.HalfType(), LANES)
    return Vector(_element(matrix)).llvm


def _lanes_below(builder: Any, width: Any) -> Any:
    numbers = ir.Constant(ir.VectorType(_INTEGERS[64], LANES), list(range(LANES)))
    first = builder.insert_element(ir.Constant(numbers.type, ir.Undefined), width, _INTEGERS[32](0))
    places = ir.Constant(ir.VectorType(_INTEGERS[32], LANES), [0] * LANES)
    return builder.icmp_signed("<", numbers, builder.shuffle_vector(first, first, places))


def _masked(builder: Any, name: str, stored: Any, result: Any, *arguments: Any) -> Any:
    """Call llvm.masked.load or llvm.masked.store."""
    suffix = {"half": "f16", "float": "f32", "double": "f64"}.get(str(stored.element), str(stored.element))
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(result, [argument.type for argument in arguments]),
        f"llvm.masked.{name}.v{LANES}{suffix}.p0",
    )
    return builder.call(function, arguments)


def _vector_in(matrix: Any) -> Vector:
    """Return the vector type that a matrix is read as: 16-bit floats as float32."""
    return FLOATS if _element(matrix) in (types.uint16, types.int16) else Vector(_element(matrix))


def _opened(builder: Any, matrix: Any, value: Any) -> Any:
    if _element(matrix) == types.uint16:
        return builder.fpext(value, FLOATS.llvm)
    if _element(matrix) == types.int16:
        wide = builder.zext(value, BITS_OF[FLOATS].llvm)
        return builder.bitcast(builder.shl(wide, _constant(BITS_OF[FLOATS], 16)), FLOATS.llvm)
    return value


def _closed(builder: Any, matrix: Any, value: Any) -> Any:
    if _element(matrix) == types.uint16:
        return builder.fptrunc(value, _stored(matrix))
    if _element(matrix) == types.int16:
        bits = builder.bitcast(value, BITS_OF[FLOATS].llvm)
        return builder.trunc(builder.lshr(bits, _constant(BITS_OF[FLOATS], 16)), _stored(matrix))
    return value


@intrinsic
def load(typing_context, matrix, row, column):
    """Read LANES columns of a row; uint16 holds float16 and int16 bfloat16, both are read as float32."""

    def emit(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        stored = _stored(matrix)
        value = builder.load(
            builder.bitcast(address, stored.as_pointer()), align=_element(matrix).bitwidth // 8
        )
        return _opened(builder, matrix, value)

    return _vector_in(matrix)(matrix, row, column), emit


@intrinsic
def load_some(typing_context, matrix, row, column, width):
    """Read `width` columns of a row, 0 in the other lanes."""

    def emit(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        stored = _stored(matrix)
        pointer = builder.bitcast(address, stored.as_pointer())
        alignment = _INTEGERS[32](_element(matrix).bitwidth // 8)
        mask = _lanes_below(builder, arguments[3])
        zeros = ir.Constant(stored, [0.0 if stored.element in _REALS else 0] * LANES)
        value = _masked(builder, "load", stored, stored, pointer, alignment, mask, zeros)
        return _opened(builder, matrix, value)

    return _vector_in(matrix)(matrix, row, column, types.int64), emit


_REALS = (ir.HalfType(), ir.FloatType(), ir.DoubleType())


@intrinsic
def store(typing_context, matrix, row, column, values):
    """Write LANES columns of a row; numbers for 16-bit floats must be representable."""

    def emit(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        value = _closed(builder, matrix, arguments[3])
        pointer = builder.bitcast(address, value.type.as_pointer())
        builder.store(value, pointer, align=_element(matrix).bitwidth // 8)
        return context.get_dummy_value()

    return types.void(matrix, row, column, values), emit


@intrinsic
def store_some(typing_context, matrix, row, column, values, width):
    """Write `width` columns of a row."""

    def emit(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        value = _closed(builder, matrix, arguments[3])
        pointer = builder.bitcast(address, value.type.as_pointer())
        alignment = _INTEGERS[32](_element(matrix).bitwidth // 8)
        mask = _lanes_below(builder, arguments[4])
        _masked(builder, "store", _stored(matrix), ir.VoidType(), value, pointer, alignment, mask)
        return context.get_dummy_value()

    return types.void(matrix, row, column, values, types.int64), emit


@intrinsic
def prefetch(typing_context, matrix, row, column):
    """Ask for a cache line that will be needed soon."""

    def emit(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        pointer = builder.bitcast(address, _INTEGERS[8].as_pointer())
        number = _INTEGERS[32]
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [pointer, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(matrix, row, column), emit
