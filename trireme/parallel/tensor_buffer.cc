// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/tensor_buffer.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/util/accumulate.h>
#include <fmt/ranges.h>

#include <memory>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

// Shared memory in the ledger, which no allocator enters there.
class CountedMemory {
 public:
  explicit CountedMemory(SharedBuffer memory)
      : memory_(std::move(memory)), category_(current_memory_category()) {
    process_memory().add(category_, bytes());
  }
  CountedMemory(const CountedMemory&) = delete;
  CountedMemory& operator=(const CountedMemory&) = delete;
  ~CountedMemory() { process_memory().remove(category_, bytes()); }

  void* data() const { return memory_.data(); }

 private:
  std::int64_t bytes() const { return static_cast<std::int64_t>(memory_.bytes()); }

  SharedBuffer memory_;
  MemoryCategory category_;
};

}  // namespace

DType dtype_of_tensor(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return DType::kF32;
    case at::kDouble:
      return DType::kF64;
    case at::kBFloat16:
      return DType::kBF16;
    case at::kHalf:
      return DType::kF16;
    case at::kChar:
      return DType::kI8;
    case at::kByte:
      return DType::kU8;
    case at::kInt:
      return DType::kI32;
    case at::kLong:
      return DType::kI64;
    default:
      throw_error<ShapeError>(
          "tensors of {} cannot be communicated; use f32, f64, bf16, f16, i8, u8, i32 or i64",
          c10::toString(dtype));
  }
}

Buffer buffer_of_tensor(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.device().is_cpu() || !tensor.is_contiguous()) {
    throw_error<ShapeError>(
        "a buffer needs a contiguous CPU tensor; got {}",
        tensor.defined()
            ? fmt::format("[{}] with strides [{}] on {}", fmt::join(tensor.sizes(), ", "),
                          fmt::join(tensor.strides(), ", "), tensor.device().str())
            : "an undefined one");
  }
  return {tensor.data_ptr(), tensor.numel(), dtype_of_tensor(tensor.scalar_type())};
}

at::Tensor shared_zeros(Group& group, at::IntArrayRef sizes, at::ScalarType dtype) {
  const auto count = static_cast<std::size_t>(c10::multiply_integers(sizes));
  const at::TensorOptions options = at::TensorOptions().dtype(dtype);
  if (count == 0) return at::zeros(sizes, options);
  auto memory = std::make_shared<CountedMemory>(
      group.allocate_shared(count * dtype_bytes(dtype_of_tensor(dtype))));
  void* data = memory->data();
  return at::from_blob(
      data, sizes, [memory = std::move(memory)](void*) mutable { memory.reset(); }, options);
}

}  // namespace trireme
