// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/tensor_buffer.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <vector>

#include "tests/support/ranks.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

TEST(TensorBuffer, IsTheTensorsMemory) {
  const at::Tensor tensor = torch::arange(24, at::kFloat).view({4, 6});
  const Buffer buffer = buffer_of_tensor(tensor[1]);
  EXPECT_EQ(buffer.data, tensor.data_ptr<float>() + 6);
  EXPECT_EQ(buffer.count, 6);
  EXPECT_EQ(buffer.dtype, DType::kF32);
  EXPECT_EQ(buffer.bytes(), 24U);
}

TEST(TensorBuffer, KnowsEveryDtypeThatTravels) {
  for (const auto& [torch_dtype, dtype] :
       {std::pair{at::kFloat, DType::kF32}, std::pair{at::kDouble, DType::kF64},
        std::pair{at::kBFloat16, DType::kBF16}, std::pair{at::kHalf, DType::kF16},
        std::pair{at::kChar, DType::kI8}, std::pair{at::kByte, DType::kU8},
        std::pair{at::kInt, DType::kI32}, std::pair{at::kLong, DType::kI64}}) {
    const Buffer buffer = buffer_of_tensor(torch::zeros({5}, torch_dtype));
    EXPECT_EQ(buffer.dtype, dtype);
    EXPECT_EQ(buffer.bytes(), 5 * c10::elementSize(torch_dtype));
  }
  EXPECT_THROW(dtype_of_tensor(at::kBool), ShapeError);
}

// Summed where it lies, and kept after its world.
TEST(TensorBuffer, SharedZerosTravelAndOutliveTheirGroup) {
  std::vector<at::Tensor> kept(3);
  testing::run_threads(3, [&](Group& group) {
    at::Tensor tensor = shared_zeros(group, {701, 53}, at::kFloat);
    EXPECT_EQ(tensor.abs().max().item<float>(), 0.0F);
    tensor.copy_(torch::arange(701 * 53, at::kFloat).view({701, 53}) + group.rank());
    group.barrier();
    group.all_reduce(buffer_of_tensor(tensor));
    EXPECT_EQ(shared_zeros(group, {0, 3}, at::kBFloat16).numel(), 0);
    EXPECT_THROW(shared_zeros(group, {3}, at::kBool), ShapeError);
    kept[static_cast<std::size_t>(group.rank())] = tensor.slice(0, 1);
  });
  const at::Tensor expected = torch::arange(701 * 53, at::kFloat).view({701, 53}) * 3 + 3;
  for (const at::Tensor& tensor : kept) EXPECT_TRUE(tensor.equal(expected.slice(0, 1)));
}

TEST(TensorBuffer, RefusesWhatIsNotOneSpan) {
  EXPECT_THROW(buffer_of_tensor(torch::zeros({3, 4}).t()), ShapeError);
  EXPECT_THROW(buffer_of_tensor(at::Tensor()), ShapeError);
  EXPECT_THROW(buffer_of_tensor(torch::zeros({3}, at::kComplexFloat)), ShapeError);
}

}  // namespace
}  // namespace trireme
