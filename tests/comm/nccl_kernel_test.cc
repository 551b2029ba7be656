// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The reduction on a device: its memory and kernels on the double of a device, against the host's;
// and its source through NVRTC itself, where that is installed.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/memory_port.h"
#include "tests/support/operations.h"
#include "trireme/base/error.h"
#include "trireme/comm/nccl/device_memory.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using testing::on_device;

constexpr const char* kFake = TRIREME_FAKE_CUDA;

class DeviceReduction : public ::testing::Test {
 protected:
  // On the device and on the host; count elements of each input.
  void compare(const NodeReduction& reduction, std::vector<Bytes> inputs, std::int64_t count) {
    std::vector<const void*> on_hosts;
    std::vector<const void*> on_devices;
    for (const Bytes& input : inputs) {
      on_hosts.push_back(input.data());
      on_devices.push_back(on_device(input.data()));
    }
    const std::size_t bytes = static_cast<std::size_t>(count) * dtype_bytes(reduction.out_dtype);
    Bytes expected(bytes);
    reduce_nodes(reduction, on_hosts, expected.data(), count);
    Bytes got(bytes, std::byte{0xee});
    memory_.reduce(reduction, on_devices, on_device(got.data()), count);
    EXPECT_TRUE(got == expected) << dtype_name(reduction.in_dtype) << " to "
                                 << dtype_name(reduction.out_dtype) << ", op "
                                 << static_cast<int>(reduction.op) << ", " << inputs.size();
  }

  const CudaDevice device_{CudaOptions{0, kFake, kFake, kFake}};
  const NvrtcApi nvrtc_{kFake};
  const ReductionKernels kernels_{device_, nvrtc_};
  DeviceMemory memory_{device_, &kernels_};
};

std::vector<TreeNode> leaves_of(int n) {
  std::vector<TreeNode> nodes;
  for (int i = 0; i < n; ++i) nodes.push_back({i, i + 1});
  return nodes;
}

TEST_F(DeviceReduction, GivesTheHostsBits) {
  for (const DType dtype : testing::kDTypes) {
    for (const ReduceOp op : testing::kReduceOps) {
      if (!testing::is_defined(op, dtype)) continue;
      for (const int n : {1, 2, 3, 5, 8, 13}) {
        std::vector<Bytes> inputs;
        for (int i = 0; i < n; ++i) inputs.push_back(distinct_data(i, 1033, dtype));
        const std::vector<TreeNode> nodes = leaves_of(n);
        compare({n, nodes, dtype, dtype, op, true}, inputs, 1033);
      }
    }
  }
}

// To and from values that are not rounded yet, and of nodes instead of leaves.
TEST_F(DeviceReduction, OfNodesUnrounded) {
  const std::vector<TreeNode> nodes{{0, 4}, {4, 6}, {6, 7}};
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const ReduceOp op : testing::kReduceOps) {
      std::vector<Bytes> narrow;
      std::vector<Bytes> wide;
      for (int i = 0; i < 3; ++i) {
        narrow.push_back(distinct_data(i, 517, dtype));
        wide.push_back(distinct_data(i, 517, DType::kF32));
      }
      compare({7, nodes, dtype, DType::kF32, op, false}, narrow, 517);
      compare({7, nodes, DType::kF32, dtype, op, true}, wide, 517);
    }
  }
}

// Every word of the 16-bit floats, and what rounds to them: infinities, subnormals, NaN.
TEST_F(DeviceReduction, EveryWordOfThe16BitFloats) {
  Bytes words(65536 * 2);
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto word = static_cast<std::uint16_t>(bits);
    std::memcpy(&words[bits * 2], &word, 2);
  }
  Bytes floats(65536 * 4);
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const std::uint32_t bits = i * 65537u + (i << 12);
    std::memcpy(&floats[i * 4], &bits, 4);
  }
  const std::vector<TreeNode> one = leaves_of(1);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    compare({1, one, dtype, DType::kF32, ReduceOp::kSum, true}, {words}, 65536);
    compare({1, one, dtype, dtype, ReduceOp::kSum, true}, {words}, 65536);
    compare({1, one, DType::kF32, dtype, ReduceOp::kSum, true}, {floats}, 65536);
  }
}

TEST_F(DeviceReduction, NanWins) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> left{nan, 1.0F, nan, -0.0F};
  std::vector<float> right{1.0F, nan, nan, 0.0F};
  const void* inputs[] = {on_device(left.data()), on_device(right.data())};
  const std::vector<TreeNode> nodes = leaves_of(2);
  for (const ReduceOp op : {ReduceOp::kMin, ReduceOp::kMax, ReduceOp::kSum}) {
    std::vector<float> out(4);
    memory_.reduce({2, nodes, DType::kF32, DType::kF32, op, true}, inputs, on_device(out.data()),
                   4);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(out[static_cast<std::size_t>(i)]));
    EXPECT_EQ(out[3], 0);
  }
}

class RealCompiler : public ::testing::TestWithParam<const char*> {};

TEST_P(RealCompiler, TakesTheKernels) {
  std::optional<NvrtcApi> nvrtc;
  try {
    nvrtc.emplace("");
  } catch (const ConfigError& error) {
    GTEST_SKIP() << error.what();
  }
  const std::string image = compile_reduction(*nvrtc, GetParam());
  EXPECT_EQ(image.substr(1, 3), "ELF");
  for (const char* name : {"trireme_reduce_bf16_bf16_sum", "trireme_reduce_i64_i64_product"}) {
    EXPECT_NE(image.find(name), std::string::npos) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, RealCompiler, ::testing::Values("sm_80", "sm_90"));

// Of what does not compile: an architecture that there is not.
TEST(RealCompilerRefusal, NamesTheArchitecture) {
  std::optional<NvrtcApi> nvrtc;
  try {
    nvrtc.emplace("");
  } catch (const ConfigError& error) {
    GTEST_SKIP() << error.what();
  }
  EXPECT_THROW(compile_reduction(*nvrtc, "sm_1"), ConfigError);
}

}  // namespace
}  // namespace trireme
