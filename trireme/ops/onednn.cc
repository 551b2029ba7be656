// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/onednn.h"

#include <fmt/ranges.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "trireme/base/error.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

using dnnl::memory;

memory::data_type type_of(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat ? memory::data_type::f32 : memory::data_type::bf16;
}

memory::desc describe(const at::Tensor& matrix) {
  return {matrix.sizes().vec(), type_of(matrix), matrix.strides().vec()};
}

// As it is where rows or columns are contiguous and nothing overlaps, else a copy.
at::Tensor readable(const at::Tensor& matrices) {
  const auto rows = matrices.stride(-2), columns = matrices.stride(-1);
  const bool by_rows = columns == 1 && rows >= matrices.size(-1);
  const bool by_columns = rows == 1 && columns >= matrices.size(-2);
  const bool apart = matrices.dim() == 2 || matrices.stride(0) > 0;
  return (by_rows || by_columns) && apart ? matrices : matrices.contiguous();
}

dnnl::matmul::primitive_desc matmul_of(const dnnl::engine& engine, const memory::desc& a,
                                       const memory::desc& b, const memory::desc* bias,
                                       const memory::desc& out) {
#if DNNL_VERSION_MAJOR >= 3
  return bias == nullptr ? dnnl::matmul::primitive_desc(engine, a, b, out)
                         : dnnl::matmul::primitive_desc(engine, a, b, *bias, out);
#else
  return {bias == nullptr ? dnnl::matmul::desc(a, b, out) : dnnl::matmul::desc(a, b, *bias, out),
          engine};
#endif
}

void check(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias,
           const at::Tensor& out) {
  const auto same = [&](const at::Tensor& t) {
    return t.scalar_type() == a.scalar_type() && t.is_cpu();
  };
  const bool batched = a.dim() == 3;
  const bool fits =
      has_kernels(a) && same(a) && same(b) && same(out) && (a.dim() == 2 || batched) &&
      b.dim() == a.dim() && out.dim() == a.dim() && a.size(-1) == b.size(-2) &&
      out.size(-2) == a.size(-2) && out.size(-1) == b.size(-1) &&
      (!batched || (a.size(0) == b.size(0) && a.size(0) == out.size(0))) && out.is_contiguous() &&
      out.numel() > 0 && a.numel() > 0 &&
      (!bias.defined() ||
       (same(bias) && bias.dim() == 1 && bias.size(0) == b.size(-1) && bias.is_contiguous()));
  if (!fits) {
    throw_error<ShapeError>(
        "cannot multiply {} [{}] by {} [{}] into [{}]{}", c10::toString(a.scalar_type()),
        fmt::join(a.sizes(), ", "), c10::toString(b.scalar_type()), fmt::join(b.sizes(), ", "),
        fmt::join(out.sizes(), ", "),
        bias.defined() ? fmt::format(", bias {} [{}]", c10::toString(bias.scalar_type()),
                                     fmt::join(bias.sizes(), ", "))
                       : "");
  }
}

}  // namespace

void multiply(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias,
              const at::Tensor& out) {
  check(a, b, bias, out);
  const at::Tensor left = readable(a), right = readable(b);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc left_desc = describe(left), right_desc = describe(right),
                     out_desc = describe(out);
  std::unordered_map<int, memory> arguments{
      {DNNL_ARG_SRC, memory(left_desc, engine, left.data_ptr())},
      {DNNL_ARG_WEIGHTS, memory(right_desc, engine, right.data_ptr())},
      {DNNL_ARG_DST, memory(out_desc, engine, out.data_ptr())}};
  memory::desc bias_desc;
  if (bias.defined()) {
    const at::Tensor row = bias.unsqueeze(0);
    bias_desc = describe(out.dim() == 2 ? row : row.unsqueeze(0));
    arguments.emplace(DNNL_ARG_BIAS, memory(bias_desc, engine, bias.data_ptr()));
  }
  // oneDNN keeps compiled primitives by shape in a cache of its own.
  dnnl::matmul(
      matmul_of(engine, left_desc, right_desc, bias.defined() ? &bias_desc : nullptr, out_desc))
      .execute(stream, arguments);
  stream.wait();
}

}  // namespace trireme::ops
