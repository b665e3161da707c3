"""From PTX to C++: a thread is a state machine that stops where it waits for other threads."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

DECLARED = {"pred": 1, "b8": 8, "b16": 16, "b32": 32, "b64": 64, "u16": 16, "u32": 32, "u64": 64}
SPECIAL = {
    "%tid.x": "t.tid",
    "%laneid": "(t.tid & 31)",
    "%ntid.x": "THREADS",
    "%ctaid.x": "p.x",
    "%ctaid.y": "p.y",
    "%ctaid.z": "0u",
    "%nctaid.x": "p.width",
    "%nctaid.y": "p.height",
}
SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "and": "&",
    "or": "|",
    "xor": "^",
    "min": "<",
    "max": ">",
}
COMPARED = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "lo": "<",
    "ls": "<=",
    "hi": ">",
}
COMPARED |= {"hs": ">="}
SHUFFLES = {"bfly": "BUTTERFLY", "idx": "INDEXED", "up": "UP", "down": "DOWN"}
IGNORED = ("membar", "fence", "prefetch", "nanosleep", "griddepcontrol", "pragma")
SYMBOL = re.compile(r"(%\w+|\w+)\s*(?:\+\s*(-?\d+))?$")


class UnknownPtxError(Exception):
    """A form of PTX that the emulator does not have."""


@dataclass(frozen=True)
class Statement:
    """A statement: its number, guard (a C++ condition or ""), operation and arguments."""

    text: str
    number: int
    guard: str
    parts: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The type that stands last, as in add.s32."""
        return self.parts[-1]


class Ptx:
    """The text of a kernel, taken apart."""

    def __init__(self, text: str) -> None:
        body = text[text.index(".visible .entry") :]
        head, _, rest = body.partition("{")
        self.name = body.split()[2].partition("(")[0]
        self.parameters = re.findall(r"\.param [^\n]*?(\w+_param_\d+)", head)
        self.threads = int(re.search(r"\.(?:reqntid|maxntid) (\d+)", head)[1])
        self.body = rest[: re.search(r"^\}", rest, re.MULTILINE).start()]
        declared = re.findall(r"\.reg \.(\w+)\s+%([a-z]+)<(\d+)>", self.body)
        self.registers = {name: (DECLARED[kind], int(count)) for kind, name, count in declared}

    @cached_property
    def statements(self) -> list[str]:
        """Labels and statements, without comments, declarations and line numbers."""
        found, begun = [], ""
        for line in self.body.splitlines():
            line = line.partition("//")[0].strip()
            if not line or line in "{}" or line.startswith((".loc", ".reg", ".pragma", ".param")):
                continue
            begun = f"{begun} {line}"
            if begun.endswith((";", ":")):
                found += [part.strip() for part in begun.split(";") if part.strip()]
                begun = ""
        return found


def listed(text: str) -> tuple[str, ...]:
    """Split arguments at the commas outside of braces and brackets."""
    return tuple(part.strip() for part in re.split(r",(?![^{\[(]*[}\])])", text) if part.strip())


def width_of(kind: str) -> int:
    """The number of bits of a type such as s32."""
    return 1 if kind == "pred" else int(re.search(r"\d+$", kind)[0])


def unsigned(kind: str) -> str:
    """The C++ type of the bits of a PTX type."""
    return f"u{max(8, width_of(kind))}"


def integer(kind: str) -> str:
    """The C++ type of an integer."""
    return f"{'s' if kind[0] == 's' else 'u'}{width_of(kind)}"


class Translator:
    """The C++ of a kernel; `counts` has the operations of each of its basic blocks."""

    def __init__(self, ptx: Ptx) -> None:
        self.ptx = ptx
        self.lines: list[str] = []
        self.counts: list[Counter[str]] = []
        self.places = 0  # where a thread may stop

    @property
    def source(self) -> str:
        """A C++ program with one function, `run`."""
        self._block()
        for number, text in enumerate(self.ptx.statements):
            self._translate(number, text)
        declared = "".join(
            f"    u{max(8, bits)} {', '.join(f'{name}{k}' for k in range(count))};\n"
            for name, (bits, count) in self.ptx.registers.items()
        )
        constants = {
            "THREADS": self.ptx.threads,
            "PARAMETERS": len(self.ptx.parameters) + 1,
            "BLOCKS": len(self.counts),
        }
        return "\n".join(
            [
                *(f"#define {name} {value}" for name, value in constants.items()),
                '#include "emulator.h"',
                f"struct Thread : Waiting {{\n{declared}}};",
                "static void step(Thread& t, Program& p, Launch& g) {",
                "switch (t.at) {",
                "case 0:;",
                *self.lines,
                "}",
                "t.wait = DONE;",
                "}",
                "DEFINE_RUN",
            ]
        )

    def _translate(self, number: int, text: str) -> None:
        if text.endswith(":"):
            self.lines.append(f"{text[:-1].replace('$', '')}:;")
            if "__tmp" not in text and "__func" not in text:
                self._block()
            return
        guarded = re.match(r"(?:@(!?)%(p\d+)\s+)?([a-z_][\w.:]*)\s*(.*)$", text, re.DOTALL)
        if guarded is None:
            raise UnknownPtxError(text)
        inverted, register, operation, arguments = guarded.groups()
        guard = f"{inverted}t.{register}" if register else ""
        parts = tuple(operation.replace("::", ".").split("."))
        self.counts[-1][operation] += 1
        method = getattr(self, f"_{parts[0]}", None)
        if method is None and parts[0] not in IGNORED:
            raise UnknownPtxError(text)
        if "ftz" in parts or "approx" in parts:
            raise UnknownPtxError(f"flushes or approximates: {text}")
        if method is not None:
            method(Statement(text, number, guard, parts, listed(arguments)))

    def _block(self) -> None:
        """Begin a basic block, which the first lane of a warp counts."""
        self.lines.append(f"if ((t.tid & 31) == 0) g.blocks[{len(self.counts)}]++;")
        self.counts.append(Counter())

    def _emit(self, s: Statement, code: str) -> None:
        self.lines.append(f"if ({s.guard}) {{ {code} }}" if s.guard else f"{{ {code} }}")

    def _assign(self, s: Statement, target: str, value: str) -> None:
        if target != "_":
            self._emit(s, f"{self._value(target)} = (u{max(8, self._width(target))})({value});")

    def _wait(self, s: Statement, kind: str, before: str = "", after: str = "") -> None:
        if s.guard:
            raise UnknownPtxError(s.text)
        self.places += 1
        at = f"t.at = {self.places}; t.wait = {kind}; return; case {self.places}:;"
        self.lines.append(f"{before} {at} {after}")

    def _width(self, register: str) -> int:
        return self.ptx.registers[re.match(r"%([a-z]+)\d", register)[1]][0]

    def _value(self, operand: str, kind: str = "b64") -> str:
        """A register, a special one, or a constant as bits of a type."""
        if operand in SPECIAL:
            return SPECIAL[operand]
        if re.match(r"%[a-z]+\d+$", operand):
            return f"t.{operand[1:]}"
        if found := re.match(r"0[df]([0-9A-Fa-f]+)$", operand):
            return f"0x{found[1]}u{'ll' * (operand[1] == 'd')}"
        if found := re.match(r"(-?(?:0x[0-9A-Fa-f]+|\d+))U?$", operand):
            bits = width_of(kind) if re.search(r"\d", kind) or kind == "pred" else 64
            return f"{int(found[1], 0) & ((1 << bits) - 1)}u{'ll' * (bits == 64)}"
        if operand in ("true", "false"):
            return str(int(operand == "true"))
        if found := re.match(r"global_smem\s*(?:\+\s*(\d+))?$", operand):
            return f"{found[1] or 0}u"
        if re.match(r"\w+$", operand):
            return "0u"  # the address of a text, for an assertion
        raise UnknownPtxError(operand)

    def _address(self, operand: str) -> str:
        base, offset = SYMBOL.match(operand.strip("[] ")).groups()
        return f"{self._value(base)} + ({offset or 0})"

    def _float(self, operand: str, kind: str) -> str:
        bits = {"f64": "b64", "f32": "b32"}.get(kind, "b16")
        return f"{kind}({self._value(operand, bits)})"

    # ---- control ----

    def _bra(self, s: Statement) -> None:
        self.lines.append(f"{f'if ({s.guard}) ' * bool(s.guard)}goto {s.arguments[0].replace('$', '')};")
        if s.guard:
            self._block()

    def _ret(self, s: Statement) -> None:
        self._emit(s, "t.wait = DONE; return;")

    _exit = _ret

    def _trap(self, s: Statement) -> None:
        self._emit(s, f"g.fault(ASSERTION, 0, {s.number});")

    _call = _trap  # of the function that reports a failed assertion

    def _bar(self, s: Statement) -> None:
        self._wait(s, "SYNC" if "warp" in s.parts else "BARRIER")

    _barrier = _bar

    # ---- between the lanes of a warp ----

    def _shfl(self, s: Statement) -> None:
        target, _, found = s.arguments[0].partition("|")
        x, y, z = (self._value(a, "b32") for a in s.arguments[1:4])
        after = f"{self._value(target)} = t.x;" + (f" {self._value(found)} = t.found;" if found else "")
        self._wait(s, SHUFFLES[s.parts[2]], f"t.x = {x}; t.y = {y}; t.z = {z};", after)

    def _redux(self, s: Statement) -> None:
        kind = {"min": "LEAST", "max": "GREATEST"}.get(s.parts[2])
        kind = f"{kind}_{s.kind[0].upper()}" if kind else s.parts[2].upper()
        value = self._value(s.arguments[1], "b32")
        self._wait(s, kind, f"t.x = {value};", f"{self._value(s.arguments[0])} = t.x;")

    def _vote(self, s: Statement) -> None:
        found = {"any": "t.x != 0", "all": "t.x == ~0u", "ballot": "t.x"}[s.parts[2]]
        value = self._value(s.arguments[1], "pred")
        self._wait(s, "VOTE", f"t.x = {value};", f"{self._value(s.arguments[0])} = {found};")

    def _ldmatrix(self, s: Statement) -> None:
        targets = listed(s.arguments[0].strip("{} "))
        kind = "LOAD_TRANSPOSED" if "trans" in s.parts else "LOAD_MATRIX"
        before = f"t.y = (u32)({self._address(s.arguments[1])}); t.z = {len(targets)};"
        after = " ".join(f"{self._value(target)} = t.matrix[{k}];" for k, target in enumerate(targets))
        self._wait(s, kind, before, after)

    def _stmatrix(self, s: Statement) -> None:
        sources = listed(s.arguments[1].strip("{} "))
        kind = "STORE_TRANSPOSED" if "trans" in s.parts else "STORE_MATRIX"
        before = f"t.y = (u32)({self._address(s.arguments[0])}); t.z = {len(sources)};"
        before += "".join(f" t.matrix[{k}] = {self._value(a, 'b32')};" for k, a in enumerate(sources))
        self._wait(s, kind, before)

    # ---- memory ----

    def _ld(self, s: Statement) -> None:
        if s.parts[1] == "param":
            base, offset = SYMBOL.match(s.arguments[1].strip("[] ")).groups()
            whole = f"p.parameters[{self.ptx.parameters.index(base)}]"
            self._assign(s, s.arguments[0], f"({integer(s.kind)})({whole} >> {8 * int(offset or 0)})")
            return
        targets = listed(s.arguments[0].strip("{} "))
        size = width_of(s.kind) // 8
        place = f"u8* m = {self._place(s, s.arguments[1], size * len(targets))};"
        parts = (
            f"{self._value(target)} = (u{self._width(target)})get<{integer(s.kind)}>(m + {k * size});"
            for k, target in enumerate(targets)
        )
        self._emit(s, " ".join([place, *parts]))

    def _st(self, s: Statement) -> None:
        if s.parts[1] == "param":
            return
        sources = listed(s.arguments[1].strip("{} "))
        size, kind = width_of(s.kind) // 8, unsigned(s.kind)
        place = f"u8* m = {self._place(s, s.arguments[0], size * len(sources))};"
        parts = (
            f"put<{kind}>(m + {k * size}, ({kind}){self._value(source, s.kind)});"
            for k, source in enumerate(sources)
        )
        self._emit(s, " ".join([place, *parts]))

    def _place(self, s: Statement, operand: str, size: int) -> str:
        """The checked place of an access."""
        address = self._address(operand)
        if s.parts[1] == "global" or (s.parts[0] in ("atom", "red") and "shared" not in s.parts):
            call = f"load({address}," if s.parts[0] == "ld" else f"store({address},"
            return f"g.{call} {size}, {s.number})"
        if "shared" in s.parts:
            return f"g.local((u32)({address}), {size}, {s.number})"
        raise UnknownPtxError(s.text)

    def _atom(self, s: Statement) -> None:
        reports = s.parts[0] == "atom"
        target, place, *values = s.arguments if reports else ("_", *s.arguments)
        names = ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")
        name = next(part for part in s.parts if part in names)
        kind = integer(s.kind) if s.kind[0] != "f" else None
        if kind is None or name in ("inc", "dec"):
            raise UnknownPtxError(s.text)  # floats would meet in any order
        given = [f"({kind}){self._value(value, s.kind)}" for value in values]
        if name == "cas":
            new = f"old == {given[0]} ? {given[1]} : old"
        elif name == "exch":
            new = given[0]
        elif name in ("min", "max"):
            new = f"old {SIGNS[name]} {given[0]} ? old : {given[0]}"
        else:
            new = f"old {SIGNS[name]} {given[0]}"
        code = f"u8* m = {self._place(s, place, width_of(s.kind) // 8)}; {kind} old = get<{kind}>(m);"
        code += f" put<{kind}>(m, ({kind})({new}));"
        if target != "_":
            code += f" {self._value(target)} = (u{self._width(target)})old;"
        self._emit(s, code)

    _red = _atom

    # ---- moves and choices ----

    def _mov(self, s: Statement) -> None:
        target, source = s.arguments
        if target.startswith("{"):
            parts = listed(target.strip("{} "))
            size = width_of(s.kind) // len(parts)
            for k, part in enumerate(parts):
                self._assign(s, part, f"(u{size})({self._value(source, s.kind)} >> {k * size})")
        elif source.startswith("{"):
            parts = listed(source.strip("{} "))
            size, whole = width_of(s.kind) // len(parts), unsigned(s.kind)
            shifted = (
                f"(({whole})(u{size}){self._value(part, f'b{size}')} << {k * size})"
                for k, part in enumerate(parts)
            )
            self._assign(s, target, " | ".join(shifted))
        else:
            self._assign(s, target, self._value(source, s.kind))

    _cvta = _mov

    def _selp(self, s: Statement) -> None:
        target, a, b, condition = s.arguments
        values = self._value(a, s.kind), self._value(b, s.kind)
        self._assign(s, target, f"{self._value(condition)} ? {values[0]} : {values[1]}")

    def _setp(self, s: Statement) -> None:
        compare = s.parts[1]
        targets = s.arguments[0].split("|")
        if len(s.arguments) != 3 or (len(targets) == 2) != (s.kind == "f16x2"):
            raise UnknownPtxError(s.text)
        for k, target in enumerate(targets):
            if s.kind == "f16x2":
                a, b = (f"f16((u16)({self._value(v, 'b32')} >> {16 * k}))" for v in s.arguments[1:])
            elif s.kind[0] in "f" or s.kind == "bf16":
                a, b = (self._float(v, s.kind) for v in s.arguments[1:])
            else:
                a, b = (f"({integer(s.kind)}){self._value(v, s.kind)}" for v in s.arguments[1:])
            self._assign(s, target, self._compared(compare, a, b, "f" in s.kind))

    def _compared(self, compare: str, a: str, b: str, floats: bool) -> str:
        if not floats:
            return f"{a} {COMPARED[compare]} {b}"
        ordered = f"({a} == {a} && {b} == {b})"
        if compare in ("num", "nan"):
            return ordered if compare == "num" else f"!{ordered}"
        if compare in COMPARED:
            return f"{ordered} && {a} {COMPARED[compare]} {b}"
        return f"!{ordered} || {a} {COMPARED[compare[:-1]]} {b}"

    # ---- arithmetic ----

    def _arithmetic(self, s: Statement) -> None:
        name, target, *operands = s.parts[0], *s.arguments
        if s.kind in ("f64", "f32"):
            value = self._of_floats(s, [self._float(a, s.kind) for a in operands])
            self._assign(s, target, f"from_{s.kind}({value})")
            return
        if not re.match(r"[bsu]\d+$", s.kind) or "cc" in s.parts or "sat" in s.parts:
            raise UnknownPtxError(s.text)
        kind, bits = integer(s.kind), unsigned(s.kind)
        wide = f"{kind[0]}{2 * width_of(s.kind)}"
        a, *rest = (f"({bits}){self._value(operand, s.kind)}" for operand in operands)
        if name in ("add", "sub"):
            value = f"{a} {SIGNS[name]} {rest[0]}"
        elif name in ("mul", "mad"):
            value = f"({wide})({kind}){a} * ({wide})({kind}){rest[0]}"
            value = {"lo": f"({bits})({value})", "wide": value, "hi": f"({value}) >> {width_of(s.kind)}"}[
                s.parts[1]
            ]
            if name == "mad":
                added = self._value(operands[2], f"b{wide[1:]}" if s.parts[1] == "wide" else s.kind)
                value = f"(u{wide[1:]})({value}) + {added}"
        elif name in ("div", "rem"):
            value = f"{'quotient' if name == 'div' else 'remainder_of'}<{kind}>({a}, {rest[0]})"
        elif name in ("min", "max"):
            value = f"({kind}){a} {SIGNS[name]} ({kind}){rest[0]} ? {a} : {rest[0]}"
        elif name == "neg":
            value = f"0 - {a}"
        elif name == "abs":
            value = f"({kind}){a} < 0 ? 0 - {a} : {a}"
        else:
            raise UnknownPtxError(s.text)
        self._assign(s, target, value)

    _add = _sub = _mul = _mad = _div = _rem = _min = _max = _neg = _abs = _sqrt = _fma = _copysign = (
        _arithmetic
    )

    def _of_floats(self, s: Statement, a: list[str]) -> str:
        name = s.parts[0]
        if name in ("add", "sub", "mul", "div", "sqrt", "fma") and s.parts[1] != "rn":
            raise UnknownPtxError(s.text)
        if name in ("min", "max") and "NaN" in s.parts:
            raise UnknownPtxError(s.text)
        single = "f" if s.kind == "f32" else ""
        match name:
            case "add" | "sub" | "mul" | "div":
                return f"{a[0]} {SIGNS[name]} {a[1]}"
            case "min" | "max":
                return f"{'least' if name == 'min' else 'greatest'}({a[0]}, {a[1]})"
            case "sqrt":
                return f"sqrt{single}({a[0]})"
            case "abs":
                return f"fabs{single}({a[0]})"
            case "neg":
                return f"-{a[0]}"
            case "fma":
                return f"fma{single}({a[0]}, {a[1]}, {a[2]})"
            case "copysign":
                return f"copysign{single}({a[1]}, {a[0]})"
        raise UnknownPtxError(s.text)

    def _bitwise(self, s: Statement) -> None:
        target, *operands = s.arguments
        a, *rest = (self._value(operand, s.kind) for operand in operands)
        if s.parts[0] == "not":
            self._assign(s, target, f"!{a}" if s.kind == "pred" else f"~{a}")
        else:
            self._assign(s, target, f"{a} {SIGNS[s.parts[0]]} {rest[0]}")

    _and = _or = _xor = _not = _bitwise

    def _shift(self, s: Statement) -> None:
        target, a, by = s.arguments
        bits, kind = width_of(s.kind), integer(s.kind)
        value, steps = f"({kind}){self._value(a, s.kind)}", f"(u32){self._value(by, 'b32')}"
        beyond = f"{value} >> {bits - 1}" if kind[0] == "s" else "0"
        sign = "<<" if s.parts[0] == "shl" else ">>"
        self._assign(
            s, target, f"{steps} >= {bits}u ? (u{bits})({beyond}) : (u{bits})({value} {sign} {steps})"
        )

    _shl = _shr = _shift

    def _shf(self, s: Statement) -> None:
        low, high, by = (self._value(a, "b32") for a in s.arguments[1:])
        by = f"({by} & 31)" if "wrap" in s.parts else f"({by} > 32 ? 32 : {by})"
        both = f"((u64){high} << 32 | {low})"
        self._assign(s, s.arguments[0], f"({both} << {by}) >> 32" if "l" in s.parts else f"{both} >> {by}")

    def _lop3(self, s: Statement) -> None:
        values = ", ".join(self._value(a, "b32") for a in s.arguments[1:])
        self._assign(s, s.arguments[0], f"chosen({values})")

    def _prmt(self, s: Statement) -> None:
        values = ", ".join(self._value(a, "b32") for a in s.arguments[1:])
        self._assign(s, s.arguments[0], f"permuted({values})")

    def _bfe(self, s: Statement) -> None:
        value = self._value(s.arguments[1], s.kind)
        position, length = (self._value(a, "b32") for a in s.arguments[2:])
        width, is_signed = width_of(s.kind), str(s.kind[0] == "s").lower()
        self._assign(s, s.arguments[0], f"field_of({value}, {position}, {length}, {width}, {is_signed})")

    def _counted(self, s: Statement) -> None:
        value, wide = self._value(s.arguments[1], s.kind), width_of(s.kind) == 64
        builtin = f"__builtin_{s.parts[0].replace('popc', 'popcount')}{'ll' * wide}({value})"
        whole = builtin if s.parts[0] == "popc" else f"{value} ? {builtin} : {width_of(s.kind)}"
        self._assign(s, s.arguments[0], whole)

    _popc = _clz = _counted

    def _cvt(self, s: Statement) -> None:
        to, source, target = s.parts[-2], s.kind, s.arguments[0]
        if "sat" in s.parts:
            raise UnknownPtxError(s.text)
        if to in ("f16x2", "bf16x2"):
            high, low = (f"(u32)from_{to[:-2]}({self._float(a, source)})" for a in s.arguments[1:])
            self._assign(s, target, f"{high} << 16 | {low}")
            return
        bits = f"b{width_of(source)}"
        value = self._value(s.arguments[1], bits)
        floats = {"f64", "f32", "f16", "bf16"}
        if source in floats and to in floats:
            if (source, to) == ("f32", "f64"):
                self._assign(s, target, f"widened({value})")
            elif source == "f64" and to in ("f16", "bf16"):
                raise UnknownPtxError(s.text)  # would be rounded twice here
            else:
                number = self._float(s.arguments[1], source)
                number = f"(float){number}" if (source, to) == ("f64", "f32") else number
                wide = f"widened(from_f32({number}))" if to == "f64" else f"from_{to}({number})"
                self._assign(s, target, wide)
        elif to in floats:
            kind = {"f64": "double", "f32": "float"}.get(to)
            if kind is None:
                raise UnknownPtxError(s.text)
            self._assign(s, target, f"from_{to}(({kind})({integer(source)}){value})")
        elif source in floats:
            rounding = {"rzi": "trunc", "rni": "nearbyint", "rmi": "floor", "rpi": "ceil"}[s.parts[1]]
            number = f"{rounding}((double){self._float(s.arguments[1], source)})"
            self._assign(s, target, f"({unsigned(to)})saturated<{integer(to)}>({number})")
        else:
            self._assign(s, target, f"({integer(to)})({integer(source)}){value}")
