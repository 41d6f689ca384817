"""Sixteen fp32 numbers at a time in compiled kernels, so that vector instructions don't hang on LLVM finding them.

`Lanes` are added, subtracted and multiplied with each other and with numbers as `float32` is; they live in registers
and last as long as a kernel does. numba is slow to load, so only modules of kernels, lazily imported, import this.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload, register_model, types

WIDTH = 16  # a vector of AVX-512, two of AVX2, four of NEON

_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
_INDEX = ir.IntType(32)
_CONTRACT = ("contract", "nsz")  # a product and a sum become one instruction where the processor has it


class LanesType(types.Type):
    """Type of sixteen fp32 numbers inside a kernel."""

    def __init__(self) -> None:
        super().__init__(name=f"Lanes({WIDTH} x float32)")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        super().__init__(manager, lanes, _VECTOR)


@intrinsic
def load(typing, array, place):
    """Return the sixteen numbers that begin at `array[place]`, where place is a tuple without negative numbers."""
    _check(array, place)

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments)
        return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)

    return LanesType()(array, place), generate


@intrinsic
def store(typing, array, place, lanes):
    """Write sixteen numbers to `array`, beginning at `place`."""
    _check(array, place)

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments)
        builder.store(arguments[2], builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, place, lanes), generate


@intrinsic
def repeat(typing, array, place):
    """Return the number `array[place]`, sixteen times."""
    _check(array, place)

    def generate(context, builder, signature, arguments):
        return _repeated(builder, builder.load(_pointer(context, builder, signature, arguments)))

    return LanesType()(array, place), generate


@intrinsic
def fill(typing, number):
    """Return a number, rounded to fp32, sixteen times."""

    def generate(context, builder, signature, arguments):
        single = context.cast(builder, arguments[0], signature.args[0], types.float32)
        return _repeated(builder, single)

    return LanesType()(number), generate


@intrinsic
def larger(typing, first, second):
    """Return the larger number of each pair, and `first` where either is NaN."""

    def generate(context, builder, signature, arguments):
        one, other = arguments
        return builder.select(builder.fcmp_ordered("<", one, other), other, one)

    return LanesType()(first, second), generate


@intrinsic
def root(typing, lanes):
    """Return the square root of each number."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{WIDTH}f32")
        return builder.call(function, arguments)

    return LanesType()(lanes), generate


def _check(array, place):
    if not (isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C"):
        raise TypingError(f"Lanes need a contiguous array of float32, got {array}")
    if not (isinstance(place, types.BaseTuple) and len(place) == array.ndim):
        raise TypingError(f"a place in {array} is a tuple of {array.ndim} integers, got {place}")


def _pointer(context, builder, signature, arguments):
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    values = cgutils.unpack_tuple(builder, arguments[1])
    kinds = signature.args[1].types
    place = [context.cast(builder, value, kind, types.intp) for value, kind in zip(values, kinds, strict=True)]
    return cgutils.get_item_pointer(context, builder, signature.args[0], array, place, wraparound=False)


def _repeated(builder, number):
    nothing, first = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_INDEX, 0)
    everywhere = ir.Constant(ir.VectorType(_INDEX, WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(builder.insert_element(nothing, number, first), nothing, everywhere)


def _arithmetic(instruction, typing, first, second):
    def generate(context, builder, signature, arguments):
        return getattr(builder, instruction)(*arguments, flags=_CONTRACT)

    return LanesType()(first, second), generate


@intrinsic
def _sum(typing, first, second):
    return _arithmetic("fadd", typing, first, second)


@intrinsic
def _difference(typing, first, second):
    return _arithmetic("fsub", typing, first, second)


@intrinsic
def _product(typing, first, second):
    return _arithmetic("fmul", typing, first, second)


@intrinsic
def _quotient(typing, first, second):
    return _arithmetic("fdiv", typing, first, second)


@overload(operator.add)
def _add(first, second):
    return _overloaded(_sum, first, second)


@overload(operator.sub)
def _subtract(first, second):
    return _overloaded(_difference, first, second)


@overload(operator.mul)
def _multiply(first, second):
    return _overloaded(_product, first, second)


@overload(operator.truediv)
def _divide(first, second):
    return _overloaded(_quotient, first, second)


def _overloaded(operation, first, second):
    # The parameters' names must be those of the caller.
    if isinstance(first, LanesType) and isinstance(second, LanesType):
        return lambda first, second: operation(first, second)
    if isinstance(first, LanesType) and isinstance(second, types.Number):
        return lambda first, second: operation(first, fill(second))
    if isinstance(first, types.Number) and isinstance(second, LanesType):
        return lambda first, second: operation(fill(first), second)
    return None
