"""Compiles the Triton kernels for real GPUs, which needs none: prints "name: bytes of machine code" for each.

The interpreter accepts much that the compiler does not.  A process of its own, because the interpreter is chosen per process.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from headwatch.capture.kernels import triton_device as device

AMPERE, HOPPER = 80, 90
FLOATS = {"key_scale", "value_scale", "slopes", "stats", "sums", "features", "span_mass", "value_mass", "output_norm"}
TABLES = {"block_table", "rows", "tiles", "items", "ends", "documents"}
SHARED = {"value_dim": 128, "value_pad": 128, "parts": 1, "part_heads": 4}
PARTIAL = SHARED | {
    "dim": 128, "dim_pad": 128, "page": 16, "tile_n": 64, "query_form": device.NATIVE, "dot_type": tl.bfloat16,
}  # fmt: skip


def compiled(kernel: object, capability: int, types: dict[str, str], constants: dict[str, object]) -> int:
    """Return the size of *kernel*'s machine code."""
    signature = {}
    for parameter in kernel.params:
        default = "*fp32" if parameter.name in FLOATS else "*i32" if parameter.name in TABLES else "i32"
        signature[parameter.name] = "constexpr" if parameter.name in constants else types.get(parameter.name, default)
    source = ASTSource(kernel, signature, constants, {})
    return len(triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"])


if __name__ == "__main__":
    numbers = {"scale": "fp32", "softcap": "fp32"}
    bf16 = numbers | dict.fromkeys(("query", "keys", "values"), "*bf16")
    sizes = {
        "bfloat16, one row": compiled(device.partial_sums, HOPPER, bf16, PARTIAL | {
            "tile_m": 16, "key_form": device.NATIVE, "has_softcap": False, "has_slopes": False, "with_values": False,
        }),
        # E4M3 on a GPU that has no such type
        "e4m3, everything, rows": compiled(device.partial_sums, AMPERE, bf16 | {"keys": "*u8", "values": "*u8"}, PARTIAL | {
            "tile_m": 64, "key_form": device.E4M3, "has_softcap": True, "has_slopes": True, "with_values": True,
        }),
        "merge": compiled(device.merge, HOPPER, {"sinks": "*bf16", "output": "*bf16"}, SHARED | {
            "tile_m": 16, "has_sinks": True, "causal": True, "with_values": True,
        }),
    }  # fmt: skip
    print("\n".join(f"{name}: {size}" for name, size in sizes.items()))  # noqa: T201 - its answer
