// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/device_link.h"

#include <ATen/Context.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/devices.h"
#include "tests/support/error_text.h"
#include "trireme/comm/world.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::failure_of;
using ::testing::HasSubstr;

// Elements: no power of two, 5 MB.
constexpr std::int64_t kCount = 1234567;

// first, first + 1 ...
at::Tensor numbers(double first) {
  return torch::arange(first, first + kCount, torch::kDouble).to(at::kFloat);
}

// A point that is reached when the test says so.
class Gate final : public DevicePoint::Impl {
 public:
  void wait() const override { open_.get_future().wait(); }
  void hold_device() const override { wait(); }
  void open() const { open_.set_value(); }

 private:
  mutable std::promise<void> open_;
};

class DeviceLinks : public ::testing::TestWithParam<c10::Device> {
 protected:
  at::Tensor on_device(const at::Tensor& values) {
    const at::Tensor result = link_.device_memory(values.numel(), values.scalar_type());
    result.copy_(values);
    return result;
  }
  at::Tensor on_host(const at::Tensor& values) {
    const at::Tensor result = link_.host_zeros(*world_, values.sizes(), values.scalar_type());
    result.copy_(values);
    return result;
  }

  const std::unique_ptr<Group> world_ = join_world({});
  DeviceLink link_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Devices, DeviceLinks, ::testing::ValuesIn(testing::devices()),
                         testing::device_name);

TEST_P(DeviceLinks, CopyToBothSides) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor values = numbers(3).to(dtype);
    const at::Tensor device = on_device(torch::zeros_like(values));
    const at::Tensor host = on_host(values);
    link_.start_copy(device, host, link_.queued()).wait();
    EXPECT_EQ(device.device(), GetParam());
    EXPECT_TRUE(device.cpu().equal(values));
    const at::Tensor back = link_.host_zeros(*world_, {kCount}, dtype);
    EXPECT_TRUE(back.equal(torch::zeros_like(values)));
    link_.start_copy(back, device, link_.queued()).wait();
    EXPECT_TRUE(back.equal(values));
  }
}

TEST_P(DeviceLinks, HostMemoryIsZerosOfItsCategory) {
  install_caching_allocator();
  const MemoryReport before = process_memory().report();
  at::Tensor memory;
  {
    const MemoryScope scope(MemoryCategory::kWeights);
    memory = link_.host_zeros(*world_, {5, 7}, at::kBFloat16);
  }
  EXPECT_EQ(memory.sizes(), at::IntArrayRef({5, 7}));
  EXPECT_EQ(memory.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(memory.is_cpu());
  const auto added = [&] {
    return process_memory().report().current[MemoryCategory::kWeights] -
           before.current[MemoryCategory::kWeights];
  };
  EXPECT_EQ(added(), 70);
  memory.reset();
  EXPECT_EQ(added(), 0);
}

// The values of the moment when the device comes to the copy, not of its start.
TEST_P(DeviceLinks, CopiesComeAfterWhatWasQueued) {
  const at::Tensor device = on_device(numbers(0));
  const at::Tensor host = on_host(numbers(7));
  for (int i = 0; i < 20; ++i) device.add_(1);
  const DevicePoint there = link_.start_copy(host, device, link_.queued());
  there.wait();
  EXPECT_TRUE(host.equal(numbers(20)));
}

TEST_P(DeviceLinks, TheDeviceWaitsWhereItIsHeld) {
  const at::Tensor device = on_device(numbers(0));
  const at::Tensor host = on_host(numbers(100));
  link_.start_copy(device, host, link_.queued()).hold_device();
  const at::Tensor sum = device + 1;
  EXPECT_TRUE(sum.cpu().equal(numbers(101)));
}

TEST_P(DeviceLinks, CopiesToOneSideEndInOrder) {
  const at::Tensor host = on_host(numbers(0));
  DevicePoint last;
  for (int i = 0; i < 10; ++i) {
    const at::Tensor device = on_device(numbers(i));
    last = link_.start_copy(host, device, link_.queued());
  }
  last.wait();
  EXPECT_TRUE(host.equal(numbers(9)));
}

// Nobody but the link has the tensors any more.
TEST_P(DeviceLinks, KeepsTensorsUntilTheyAreCopied) {
  const at::Tensor host = on_host(numbers(0));
  DevicePoint last;
  for (int i = 0; i < 8; ++i) {
    const at::Tensor from = on_device(numbers(i));
    const at::Tensor between = link_.host_zeros(*world_, {kCount}, at::kFloat);
    const DevicePoint first = link_.start_copy(between, from, link_.queued());
    const at::Tensor again = link_.device_memory(kCount, at::kFloat);
    const DevicePoint second = link_.start_copy(again, between, first);
    last = link_.start_copy(host, again, second);
  }
  last.wait();
  EXPECT_TRUE(host.equal(numbers(7)));
}

TEST_P(DeviceLinks, EndsAfterItsCopies) {
  const at::Tensor host = on_host(numbers(0));
  {
    DeviceLink short_lived(GetParam());
    for (int i = 0; i < 5; ++i) {
      const at::Tensor device = on_device(numbers(i));
      short_lived.start_copy(host, device, short_lived.queued());
    }
  }
  EXPECT_TRUE(host.equal(numbers(4)));
}

TEST_P(DeviceLinks, ManyThreadsCopyAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const at::Tensor device = on_device(numbers(t));
      const at::Tensor host = on_host(numbers(0));
      for (int i = 0; i < 4; ++i) {
        device.add_(10);
        link_.start_copy(host, device, link_.queued()).wait();
        EXPECT_TRUE(host.equal(numbers(t + 10 * (i + 1)))) << t;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(DeviceLinks, NothingIsCopiedAtOnce) {
  link_.start_copy(on_host(torch::zeros({0})), on_device(torch::zeros({0})), {}).wait();
  DevicePoint().wait();
  DevicePoint().hold_device();
}

TEST_P(DeviceLinks, RefuseWhatDoesNotFit) {
  const at::Tensor host = on_host(torch::ones({6}));
  const at::Tensor device = on_device(torch::ones({6}));
  const auto refusal = [&](const at::Tensor& to, const at::Tensor& from) {
    return failure_of([&] { link_.start_copy(to, from, {}); });
  };
  EXPECT_THAT(refusal(host, device.narrow(0, 0, 5)),
              AllOf(HasSubstr("ShapeError"), HasSubstr("6 Float"), HasSubstr("5 Float")));
  EXPECT_THAT(refusal(host, device.to(at::kDouble)), HasSubstr("Double"));
  EXPECT_THAT(refusal(host.view({2, 3}).t(), device.view({2, 3})), HasSubstr("contiguous"));
  EXPECT_THAT(refusal(host, torch::ones({6}, at::TensorOptions().device(at::kMeta))),
              HasSubstr("meta"));
}

// The caller goes on while the copy waits; what it writes meanwhile is what is copied.
TEST(DeviceLink, CopiesOfTheCpuGoOnBesideTheCaller) {
  const std::unique_ptr<Group> world = join_world({});
  DeviceLink link(at::kCPU);
  const at::Tensor device = link.device_memory(kCount, at::kFloat);
  device.copy_(numbers(1));
  const at::Tensor host = link.host_zeros(*world, {kCount}, at::kFloat);
  const auto gate = std::make_shared<Gate>();
  const DevicePoint there = link.start_copy(host, device, DevicePoint(gate));
  EXPECT_EQ(host.abs().max().item<float>(), 0.0F);
  device.add_(1);
  gate->open();
  there.wait();
  EXPECT_TRUE(host.equal(numbers(2)));
}

TEST(DeviceLink, RefusesDevicesThatItCannotCopyTo) {
  EXPECT_THAT(failure_of([] { const DeviceLink link(c10::Device(at::kMeta, 0)); }),
              AllOf(HasSubstr("ConfigError"), HasSubstr("meta"), HasSubstr("no streams")));
  if constexpr (!ops::kHasCudaKernels) {
    EXPECT_THAT(
        failure_of([] { const DeviceLink link(c10::Device(at::kCUDA, 0)); }),
        AllOf(HasSubstr("ConfigError"), HasSubstr("cuda:0"), HasSubstr("TRIREME_WITH_CUDA")));
  }
}

}  // namespace
}  // namespace trireme
