"""The TVM back end: IR graphs to TensorIR functions to native code with a plain C entry.

The road: `lower` turns a graph into kernels (`kernels`, written with `tir`, `expr` and `math`) and a plan (`arena`),
`build` turns those into an object file and links it with the few C files of `codegen/c_runtime`.
Importing a module of this package imports TVM.
"""
