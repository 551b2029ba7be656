// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Buffers on CUDA devices, against doubles of CUDA and NCCL (fakes/) whose devices are threads. The
// kernels are the library's, compiled for the host.

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/operation_table.h"
#include "tests/support/ranks.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::Bytes;
using testing::distinct_data;
using testing::error_text;
using ::testing::HasSubstr;
using testing::Kind;
using testing::on_device;
using testing::reference_reduce;
using testing::run_table;
using testing::table_of;

constexpr const char* kFake = TRIREME_FAKE_CUDA;

CudaOptions fake_cuda(int device) { return {device, kFake, kFake, kFake}; }

template <class Function>
Function* fake_function(const char* name) {
  void* library = dlopen(kFake, RTLD_NOW | RTLD_LOCAL);
  return reinterpret_cast<Function*>(dlsym(library, name));
}

std::string misuse() {
  std::string text(4096, '\0');
  fake_function<void(char*, std::size_t)>("trireme_fake_misuse")(text.data(), text.size());
  return text.substr(0, text.find('\0'));
}
void stall(int device, bool stalled) {
  fake_function<void(int, bool)>("trireme_fake_stall")(device, stalled);
}
int aborts() { return fake_function<int()>("trireme_fake_aborts")(); }

// Rank r has device r.
void run_devices(int n, const std::function<void(Group&)>& body,
                 const std::string& engine = "auto") {
  testing::run_threads(n, body, engine,
                       [](WorldOptions& options) { options.cuda = fake_cuda(options.rank); });
}

// The same where the group is not closed: the body makes it fail.
void run_failing_devices(int n, const std::function<void(int, std::unique_ptr<Group>&)>& body) {
  const testing::Listener listener = testing::listen_on_free_port();
  const auto options = testing::world_options(n, listener);
  testing::run_rank_threads(n, [&](int rank) {
    WorldOptions own = options[static_cast<std::size_t>(rank)];
    own.cuda = fake_cuda(rank);
    auto group = join_world(own);
    body(rank, group);
  });
}

Buffer device_buffer(Bytes& bytes, DType dtype, int device) {
  return {on_device(bytes.data()), static_cast<std::int64_t>(bytes.size() / dtype_bytes(dtype)),
          dtype, device};
}

// What a call throws: see error_text().
std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error_text(error);
  }
  return "no error";
}

class NcclOperations : public ::testing::TestWithParam<int> {
 protected:
  static void check(Kind kind) {
    const auto table = table_of(kind, GetParam());
    run_devices(GetParam(),
                [&](Group& group) { EXPECT_EQ(run_table(group, table, group.rank()), ""); });
    EXPECT_EQ(misuse(), "");
  }
};

TEST_P(NcclOperations, AllReduce) { check(Kind::kAllReduce); }
TEST_P(NcclOperations, AllReduceOfMany) { check(Kind::kAllReduceMany); }
TEST_P(NcclOperations, ReduceScatter) { check(Kind::kReduceScatter); }
TEST_P(NcclOperations, AllGather) { check(Kind::kAllGather); }
TEST_P(NcclOperations, Broadcast) { check(Kind::kBroadcast); }
TEST_P(NcclOperations, BroadcastOfMany) { check(Kind::kBroadcastMany); }
TEST_P(NcclOperations, Reduce) { check(Kind::kReduce); }
TEST_P(NcclOperations, Gather) { check(Kind::kGather); }
TEST_P(NcclOperations, Scatter) { check(Kind::kScatter); }
TEST_P(NcclOperations, AllToAll) { check(Kind::kAllToAll); }
TEST_P(NcclOperations, SendRecv) { check(Kind::kShift); }

// All under way at once, sent from the first tag and received from the last one.
TEST_P(NcclOperations, MessagesInAnyOrderOfTags) {
  constexpr int kTags = 7;
  const int n = GetParam();
  const auto data = [&](int from, int to, int tag) {
    return distinct_data((from * n + to) * kTags + tag, 517 * (tag + 1), DType::kF32);
  };
  run_devices(n, [&](Group& group) {
    std::vector<Bytes> sent;
    std::vector<Bytes> received;
    for (int to = 0; to < n; ++to) {
      for (int tag = 0; tag < kTags; ++tag) sent.push_back(data(group.rank(), to, tag));
    }
    for (const Bytes& bytes : sent) received.emplace_back(bytes.size(), std::byte{0xee});
    std::vector<Work> works;
    const auto at = [&](int peer, int tag) { return static_cast<std::size_t>(peer * kTags + tag); };
    for (int tag = 0; tag < kTags; ++tag) {
      for (int peer = 0; peer < n; ++peer) {
        const int last = kTags - 1 - tag;
        works.push_back(group.start_send(
            device_buffer(sent[at(peer, tag)], DType::kF32, group.rank()), peer, tag));
        works.push_back(group.start_recv(
            device_buffer(received[at(peer, last)], DType::kF32, group.rank()), peer, last));
      }
    }
    for (Work& work : works) work.wait();
    for (int from = 0; from < n; ++from) {
      for (int tag = 0; tag < kTags; ++tag) {
        EXPECT_TRUE(received[at(from, tag)] == data(from, group.rank(), tag)) << from << " " << tag;
      }
    }
  });
  EXPECT_EQ(misuse(), "");
}

INSTANTIATE_TEST_SUITE_P(Sizes, NcclOperations, ::testing::Values(1, 2, 3, 5));

// Both kinds of memory in one group, in one order, and in its parts.
TEST(NcclEngine, HostAndDeviceTakeTurns) {
  const Bytes zero = distinct_data(0, 70001, DType::kBF16);
  const Bytes one = distinct_data(1, 70001, DType::kBF16);
  const Bytes sum = reference_reduce({zero, one}, DType::kBF16, ReduceOp::kSum);
  for (const char* engine : {"auto", "gloo"}) {
    run_devices(
        2,
        [&](Group& world) {
          const auto part = world.split("part", {0, 1});
          for (Group* group : {&world, part.get()}) {
            Bytes host = group->rank() == 0 ? zero : one;
            Bytes device = host;
            Work work = group->start_all_reduce(device_buffer(device, DType::kBF16, group->rank()));
            group->all_reduce(Buffer{host.data(), 70001, DType::kBF16});
            work.wait();
            EXPECT_TRUE(host == sum);
            EXPECT_TRUE(device == sum);
            EXPECT_GT(group->bytes_sent(), 0);
          }
          part->close();
        },
        engine);
  }
  EXPECT_EQ(misuse(), "");
}

// Device 1 stands still in the middle of a transfer, for longer than the others wait.
TEST(NcclEngine, ADeadlineEndsATransferThatHangs) {
  const int before = aborts();
  run_failing_devices(3, [&](int rank, std::unique_ptr<Group>& group) {
    Bytes data = distinct_data(rank, 70001, DType::kF32);
    const Buffer buffer = device_buffer(data, DType::kF32, rank);
    group->all_reduce(buffer);
    if (rank == 1) stall(1, true);
    group->barrier();
    group->set_timeout(std::chrono::milliseconds(300));
    EXPECT_THAT(
        error_of([&] { group->all_reduce(buffer); }),
        AllOf(HasSubstr("TimeoutError: group world"), HasSubstr("all_reduce(sum of 70001")));
    // Nothing moves any more, and nothing can be asked for.
    EXPECT_THAT(error_of([&] { group->all_reduce(buffer); }), HasSubstr("TimeoutError"));
  });
  stall(1, false);
  EXPECT_GE(aborts() - before, 3);
  EXPECT_EQ(misuse(), "");
}

// Rank 1's device has stopped in a transfer, and its rank goes away without a word.
TEST(NcclEngine, ALostPeerEndsATransfer) {
  run_failing_devices(3, [&](int rank, std::unique_ptr<Group>& group) {
    Bytes data = distinct_data(rank, 70001, DType::kF32);
    const Buffer buffer = device_buffer(data, DType::kF32, rank);
    group->all_reduce(buffer);
    if (rank == 1) stall(1, true);
    group->barrier();
    if (rank == 1) {
      Work work = group->start_all_reduce(buffer);
      EXPECT_FALSE(work.wait_for(std::chrono::milliseconds(100)));
      group.reset();
      EXPECT_NE(work.error(), nullptr);
    } else {
      EXPECT_THAT(error_of([&] { group->all_reduce(buffer); }),
                  HasSubstr("rank 1 destroyed group world with work pending"));
    }
  });
  stall(1, false);
  EXPECT_EQ(misuse(), "");
}

TEST(NcclEngine, ErrorsOfNcclAreThrown) {
  run_failing_devices(2, [&](int rank, std::unique_ptr<Group>& group) {
    Bytes data = distinct_data(rank, 70001, DType::kF32);
    const Buffer buffer = device_buffer(data, DType::kF32, rank);
    group->all_reduce(buffer);
    if (rank == 1) fake_function<void(int)>("trireme_fake_break")(1);
    group->barrier();
    EXPECT_THAT(error_of([&] { group->all_reduce(buffer); }),
                AllOf(HasSubstr("CommError: group world: "),
                      HasSubstr("remote process exited or there was a network error")));
  });
  EXPECT_EQ(misuse(), "");
}

TEST(NcclEngine, MismatchesAreSeenBeforeAnythingMoves) {
  run_failing_devices(2, [&](int rank, std::unique_ptr<Group>& group) {
    Bytes data = distinct_data(rank, 70000 + rank, DType::kF32);
    EXPECT_THAT(
        error_of([&] { group->all_reduce(device_buffer(data, DType::kF32, rank)); }),
        AllOf(HasSubstr("CommError"), HasSubstr("sum of 70000"), HasSubstr("sum of 70001")));
  });
  EXPECT_EQ(misuse(), "");
}

TEST(NcclRefusal, ADeviceBufferInAWorldOfTheHost) {
  float value = 1;
  testing::run_threads(2, [&](Group& group) {
    const Buffer buffer{on_device(&value), 1, DType::kF32, 0};
    EXPECT_THAT(error_of([&] { group.all_reduce(buffer); }),
                HasSubstr("ShapeError: group world: a buffer on CUDA device 0, and this world "
                          "takes none: join it with WorldOptions::cuda.device"));
  });
}

TEST(NcclRefusal, AnotherDeviceThanTheRanks) {
  float value = 1;
  run_devices(2, [&](Group& group) {
    const Buffer buffer{on_device(&value), 1, DType::kF32, 5};
    EXPECT_THAT(error_of([&] { group.all_reduce(buffer); }),
                HasSubstr("a buffer on CUDA device 5, and this rank joined with device " +
                          std::to_string(group.rank())));
  });
}

// What each rank of a world of two is told.
std::vector<std::string> join_errors(const CudaOptions& zero, const CudaOptions& one) {
  const testing::Listener listener = testing::listen_on_free_port();
  const auto options = testing::world_options(2, listener);
  std::vector<std::string> errors(2);
  testing::run_rank_threads(2, [&](int rank) {
    WorldOptions own = options[static_cast<std::size_t>(rank)];
    own.cuda = rank == 0 ? zero : one;
    errors[static_cast<std::size_t>(rank)] = error_of([&] { join_world(own); });
  });
  return errors;
}

TEST(NcclRefusal, TwoRanksOnOneDevice) {
  for (const std::string& error : join_errors(fake_cuda(3), fake_cuda(3))) {
    EXPECT_THAT(error, HasSubstr("ranks 0 and 1 both have the CUDA device at 0000:03:00.0"));
  }
}

TEST(NcclRefusal, ARankWithoutADevice) {
  for (const std::string& error : join_errors(fake_cuda(0), CudaOptions{})) {
    EXPECT_THAT(error, AllOf(HasSubstr("ConfigError"), HasSubstr("buffers on CUDA devices"),
                             HasSubstr("'by NCCL 2.28.9' and 'not taken'")));
  }
}

// Before any socket opens: nobody listens at this port.
TEST(NcclRefusal, LibrariesAndDevicesThatAreNotThere) {
  const auto refusal = [](const CudaOptions& cuda) {
    WorldOptions options;
    options.rank = 1;
    options.size = 2;
    options.cuda = cuda;
    return error_of([&] { join_world(options); });
  };
  EXPECT_THAT(refusal({0, "libno-cuda.so", kFake, kFake}),
              AllOf(HasSubstr("ConfigError: the CUDA driver cannot be loaded: "),
                    HasSubstr("libno-cuda.so")));
  EXPECT_THAT(refusal({0, kFake, "libno-nccl.so", kFake}),
              HasSubstr("ConfigError: NCCL cannot be loaded: "));
  EXPECT_THAT(refusal({0, kFake, kFake, "libno-nvrtc.so"}),
              HasSubstr("ConfigError: NVRTC, CUDA's compiler at run time, cannot be loaded: "));
  EXPECT_THAT(refusal({0, kFake, "libm.so.6", kFake}), HasSubstr("has no ncclGetVersion"));
  EXPECT_THAT(refusal(fake_cuda(8)),
              HasSubstr("there is no CUDA device 8: this process sees 8, numbered from 0"));
}

}  // namespace
}  // namespace trireme
