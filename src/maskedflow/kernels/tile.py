"""The innermost loops of everything: small matrix products that stay in registers."""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from maskedflow.kernels import GROUP

#: The bytes of a row of a panel: 64 samples in single precision, 32 in double.
PANEL_BYTES = 256
#: How many columns of a transposed matrix are read before the next rows.
CHUNK = 48

_FEATURES = llvmlite.binding.get_host_cpu_features()
_VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx2") else 16
# A tile's sums have to fit in the registers: 32 of them, or 16 with AVX2.
_VECTORS = 2 if _VECTOR_BYTES == 32 else 4
_TILE_BYTES = _VECTOR_BYTES * _VECTORS

#: Untyped for mypy: compiled code calls these without the typing context.
_intrinsic: Any = intrinsic

#: NaN and infinity keep their meaning; a product and a sum may become one instruction.
_njit: Any = numba.njit  # whose types miss some options
jit = _njit(
    nogil=True,
    error_model="numpy",
    fastmath={"contract", "nsz"},
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)


def jit_as(name: str, function: Any) -> Any:
    """Compiles a function that is made several times, under a name of its own.

    LLVM links by names: of two alike from the cache, that of the first would be called by both.
    """
    function.__qualname__ = name
    return jit(function)


@_intrinsic
def pointer(typingctx: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of the type of `like`."""
    result = types.CPointer(like)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(result))

    return result(address, like), codegen


@_intrinsic
def size_of(typingctx: Any, like: Any) -> Any:
    """The bytes of a number."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.int64, signature.args[0].bitwidth // 8)

    return types.int64(like), codegen


@_intrinsic
def fetch_add(typingctx: Any, address: Any, value: Any) -> Any:
    """Adds to a 64-bit integer that threads share; what it was before."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "monotonic")

    return types.int64(types.int64, types.int64), codegen


@_intrinsic
def call(typingctx: Any, function: Any, argument: Any) -> Any:
    """Calls a compiled function of an integer by its address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = arguments[1].type
        kind = ir.FunctionType(ir.VoidType(), [integer]).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _multiply_add(builder: Any, vector: Any, size: int) -> Any:
    """LLVM's a * b + c, rounded once, of vectors of numbers of `size` bytes."""
    kind = ir.FunctionType(vector, [vector] * 3)
    name = f"llvm.fma.v{vector.count}f{8 * size}"
    return cgutils.get_or_insert_function(builder.module, kind, name)


def _tile(rows: int, vectors: int) -> Any:
    """C[u] += sum_k A[u, k] B[k] for `rows` rows u, and so many vectors of columns.

    If there is a `start`, C is not read, and its rows begin with the numbers there. With 1 as its
    `gate` sums below zero become zero; with an address, sums where there is nothing positive.

    Written in LLVM's own language, since no loop that Numba accepts keeps 24 sums in registers.
    Addresses are in bytes, steps in numbers.
    """

    @_intrinsic
    def tile(
        typingctx: Any,
        like: Any,
        a: Any,
        row_step: Any,
        column_step: Any,
        b: Any,
        b_step: Any,
        c: Any,
        c_step: Any,
        n: Any,
        start: Any,
        start_step: Any,
        gate: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, a, row_step, column_step, b, b_step, c, c_step, n, start, start_step, gate = (
                arguments
            )
            number = context.get_value_type(signature.args[0])
            size = signature.args[0].bitwidth // 8
            lanes = _VECTOR_BYTES // size
            vector = ir.VectorType(number, lanes)
            integer = n.type
            multiply_add = _multiply_add(builder, vector, size)

            def constant(value: int) -> Any:
                return ir.Constant(integer, value)

            def at(base: Any, offset: Any) -> Any:
                return builder.gep(base, [offset])

            def load(place: Any) -> Any:
                value = builder.load(builder.bitcast(place, vector.as_pointer()))
                value.align = size
                return value

            def spread(place: Any) -> Any:
                first = builder.insert_element(
                    ir.Constant(vector, ir.Undefined),
                    builder.load(place),
                    ir.Constant(ir.IntType(32), 0),
                )
                everywhere = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
                return builder.shuffle_vector(first, first, everywhere)

            a, b, c = (builder.inttoptr(one, number.as_pointer()) for one in (a, b, c))
            places = [
                [
                    at(c, builder.add(builder.mul(c_step, constant(u)), constant(v * lanes)))
                    for v in range(vectors)
                ]
                for u in range(rows)
            ]
            adds, begins, entry = (
                builder.append_basic_block(name) for name in ("adds", "begins", "entry")
            )
            builder.cbranch(builder.icmp_signed("==", start, constant(0)), adds, begins)
            builder.position_at_end(adds)
            found = [[load(place) for place in row] for row in places]
            builder.branch(entry)
            builder.position_at_end(begins)
            first = builder.inttoptr(start, number.as_pointer())
            given = [spread(at(first, builder.mul(start_step, constant(u)))) for u in range(rows)]
            builder.branch(entry)
            builder.position_at_end(entry)
            before = []
            for u, row in enumerate(found):
                before.append([builder.phi(vector) for _ in row])
                for one, value in zip(before[-1], row, strict=True):
                    one.add_incoming(value, adds)
                    one.add_incoming(given[u], begins)
            loop = builder.append_basic_block("loop")
            done = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", n, constant(0)), loop, done)

            builder.position_at_end(loop)
            k = builder.phi(integer)
            sums = [[builder.phi(vector) for _ in row] for row in places]
            row = at(b, builder.mul(k, b_step))
            inputs = [load(at(row, constant(v * lanes))) for v in range(vectors)]
            column = builder.mul(k, column_step)
            after = []
            for u in range(rows):
                offset = builder.add(column, builder.mul(row_step, constant(u)))
                weight = spread(at(a, offset))
                after.append(
                    [
                        builder.call(multiply_add, [weight, value, total])
                        for value, total in zip(inputs, sums[u], strict=True)
                    ]
                )
            following = builder.add(k, constant(1))
            builder.cbranch(builder.icmp_signed("<", following, n), loop, done)
            k.add_incoming(constant(0), entry)
            k.add_incoming(following, loop)

            builder.position_at_end(done)
            for u, row_of_places in enumerate(places):
                for v, place in enumerate(row_of_places):
                    sums[u][v].add_incoming(before[u][v], entry)
                    sums[u][v].add_incoming(after[u][v], loop)
                    total = builder.phi(vector)
                    total.add_incoming(before[u][v], entry)
                    total.add_incoming(after[u][v], loop)
                    places[u][v] = (total, place)

            def store(value: Any, place: Any) -> None:
                stored = builder.store(value, builder.bitcast(place, vector.as_pointer()))
                stored.align = size

            zero = ir.Constant(vector, [0.0] * lanes)
            plain, rectified, gated, end = (
                builder.append_basic_block(name) for name in ("plain", "rectified", "gated", "end")
            )
            gates = builder.inttoptr(gate, number.as_pointer())
            switch = builder.switch(gate, gated)
            switch.add_case(constant(0), plain)
            switch.add_case(constant(1), rectified)
            for block in (plain, rectified, gated):
                builder.position_at_end(block)
                for u, row_of_places in enumerate(places):
                    for v, (total, place) in enumerate(row_of_places):
                        value = total
                        if block is rectified:  # a nan stays one
                            negative = builder.fcmp_ordered("<", total, zero)
                            value = builder.select(negative, zero, total)
                        elif block is gated:
                            offset = builder.mul(c_step, constant(u))
                            offset = builder.add(offset, constant(v * lanes))
                            opens = builder.fcmp_ordered(">", load(at(gates, offset)), zero)
                            value = builder.select(opens, total, zero)
                        store(value, place)
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        integers = [types.int64] * 11
        return types.void(like, *integers), codegen

    return tile


def _dot(rows: int, columns: int) -> Any:
    """C[u, v] = sum of A[u] B[v] over rows of some panels, for `rows` rows u and `columns` rows v.

    What a gradient of weights consists of. Rows of A and of B follow each other, and a panel's
    begin `step` bytes after those of the panel before it; rows of C are `c_step` bytes apart.
    """

    @_intrinsic
    def dot(
        typingctx: Any, like: Any, a: Any, b: Any, step: Any, c: Any, c_step: Any, panels: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, a, b, step, c, c_step, panels = arguments
            number = context.get_value_type(signature.args[0])
            size = signature.args[0].bitwidth // 8
            lanes = _VECTOR_BYTES // size
            vector = ir.VectorType(number, lanes)
            integer = panels.type
            multiply_add = _multiply_add(builder, vector, size)

            def constant(value: int) -> Any:
                return ir.Constant(integer, value)

            def load(base: Any, byte: int) -> Any:
                place = builder.add(base, constant(byte))
                value = builder.load(builder.inttoptr(place, vector.as_pointer()))
                value.align = size
                return value

            zero = ir.Constant(vector, [0.0] * lanes)
            entry = builder.block
            loop = builder.append_basic_block("loop")
            done = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", panels, constant(0)), loop, done)

            builder.position_at_end(loop)
            panel = builder.phi(integer)
            sums = [builder.phi(vector) for _ in range(rows * columns)]
            left = builder.add(a, builder.mul(panel, step))
            right = builder.add(b, builder.mul(panel, step))
            totals = list(sums)
            for byte in range(0, PANEL_BYTES, _VECTOR_BYTES):
                x = [load(left, u * PANEL_BYTES + byte) for u in range(rows)]
                y = [load(right, v * PANEL_BYTES + byte) for v in range(columns)]
                totals = [
                    builder.call(multiply_add, [x[n // columns], y[n % columns], total])
                    for n, total in enumerate(totals)
                ]
            following = builder.add(panel, constant(1))
            builder.cbranch(builder.icmp_signed("<", following, panels), loop, done)
            panel.add_incoming(constant(0), entry)
            panel.add_incoming(following, loop)
            for one, total in zip(sums, totals, strict=True):
                one.add_incoming(zero, entry)
                one.add_incoming(total, loop)

            builder.position_at_end(done)
            parts = []
            for total in totals:
                part = builder.phi(vector)
                part.add_incoming(zero, entry)
                part.add_incoming(total, loop)
                parts.append(part)
            # Neighbours of two vectors are added into one, until each number is a whole sum.
            for _ in range(lanes.bit_length() - 1):
                pairs = [*zip(parts[::2], parts[1::2], strict=True)]
                parts = [
                    builder.fadd(
                        *(builder.shuffle_vector(*pair, every) for every in _halves(lanes))
                    )
                    for pair in pairs
                ]
            row = ir.VectorType(number, columns)
            for u in range(rows):
                part, first = parts[u * columns // lanes], u * columns % lanes
                chosen = ir.Constant(
                    ir.VectorType(ir.IntType(32), columns), [first + v for v in range(columns)]
                )
                place = builder.add(c, builder.mul(c_step, constant(u)))
                stored = builder.store(
                    builder.shuffle_vector(part, part, chosen),
                    builder.inttoptr(place, row.as_pointer()),
                )
                stored.align = size
            return context.get_dummy_value()

        integers = [types.int64] * 6
        return types.void(like, *integers), codegen

    return dot


def _halves(lanes: int) -> Any:
    """The even and the odd places of two vectors."""
    places = ir.VectorType(ir.IntType(32), lanes)
    return [ir.Constant(places, [2 * n + odd for n in range(lanes)]) for odd in (0, 1)]


#: The sums of a piece of a gradient, which stay in registers.
SUMS = 16 if _VECTOR_BYTES == 64 else 8
#: Its rows and columns, the fewest columns first.
SHAPES = ((SUMS, 1), (SUMS // 2, 2), (4, SUMS // 4))
dots = tuple(_dot(rows, columns) for rows, columns in SHAPES)


_tile1, _tile2, _tile3, _tile4, _tile5, _tile6 = (
    _tile(rows, _VECTORS) for rows in range(1, GROUP + 1)
)
_narrow1, _narrow6 = _tile(1, 1), _tile(GROUP, 1)


@jit
def fills_row(width: int) -> bool:
    """Whether a product for so many bytes of each row writes all of it."""
    left = width % _TILE_BYTES
    return width > PANEL_BYTES - _TILE_BYTES and (left == 0 or left > _VECTOR_BYTES)


@jit
def add_product(
    like: Any,
    a: int,
    row_step: int,
    column_step: int,
    rows: int,
    b: int,
    b_step: int,
    c: int,
    c_step: int,
    n: int,
    width: int,
    start: int,
    start_step: int,
    gate: int,
) -> None:
    """Adds the product of A, rows by n, with n rows of a panel, from b on, to rows from c on.

    All numbers are of the type of `like`; a, b and c are addresses, steps are in numbers: A's go
    from A[u, k] to A[u + 1, k] and to A[u, k + 1], the others from a row to the next. Of each row
    the first `width` bytes, at least, are of interest. Rows begin with what is at `start`, an
    address or 0, and whose numbers are `start_step` apart. In the end they go through a `gate`: 0
    for none, 1 for a ReLU, or the address of rows whose positive numbers let sums through.
    """
    size = size_of(like)
    # Neighbours in a column of A lie far apart: few of them at a time stay in the cache, for all
    # the rows that share their lines.
    most = n if column_step == 1 else CHUNK
    for k in range(0, n, max(most, 1)):
        part = min(most, n - k)
        first = a + k * column_step * size
        for u in range(0, rows, GROUP):
            left = rows - u
            w = first + u * row_step * size
            s = start + u * start_step * size if start and k == 0 else 0
            g = gate + u * c_step * size if gate > 1 else gate
            g = g if k + part >= n else 0  # not before the sums are complete
            for byte in range(0, width, _TILE_BYTES):
                x = b + k * b_step * size + byte
                y = c + u * c_step * size + byte
                here = g + byte if g > 1 else g
                if width - byte <= _VECTOR_BYTES:
                    if left >= GROUP:
                        _narrow6(
                            like,
                            w,
                            row_step,
                            column_step,
                            x,
                            b_step,
                            y,
                            c_step,
                            part,
                            s,
                            start_step,
                            here,
                        )
                    else:
                        for row in range(left):
                            _narrow1(
                                like,
                                w + row * row_step * size,
                                row_step,
                                column_step,
                                x,
                                b_step,
                                y + row * c_step * size,
                                c_step,
                                part,
                                s + row * start_step * size if s else 0,
                                start_step,
                                here + row * c_step * size if here > 1 else here,
                            )
                elif left >= GROUP:
                    _tile6(
                        like,
                        w,
                        row_step,
                        column_step,
                        x,
                        b_step,
                        y,
                        c_step,
                        part,
                        s,
                        start_step,
                        here,
                    )
                elif left == 5:
                    _tile5(
                        like,
                        w,
                        row_step,
                        column_step,
                        x,
                        b_step,
                        y,
                        c_step,
                        part,
                        s,
                        start_step,
                        here,
                    )
                elif left == 4:
                    _tile4(
                        like,
                        w,
                        row_step,
                        column_step,
                        x,
                        b_step,
                        y,
                        c_step,
                        part,
                        s,
                        start_step,
                        here,
                    )
                elif left == 3:
                    _tile3(
                        like,
                        w,
                        row_step,
                        column_step,
                        x,
                        b_step,
                        y,
                        c_step,
                        part,
                        s,
                        start_step,
                        here,
                    )
                elif left == 2:
                    _tile2(
                        like,
                        w,
                        row_step,
                        column_step,
                        x,
                        b_step,
                        y,
                        c_step,
                        part,
                        s,
                        start_step,
                        here,
                    )
                else:
                    _tile1(
                        like,
                        w,
                        row_step,
                        column_step,
                        x,
                        b_step,
                        y,
                        c_step,
                        part,
                        s,
                        start_step,
                        here,
                    )
