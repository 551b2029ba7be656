// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What replicas live beside, report and refuse.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <future>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/data/replica.h"
#include "trireme/parallel/flat_parameters.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::Chain;
using testing::chain_loss;
using testing::failure_of;
using testing::gradients_of;
using ::testing::HasSubstr;
using testing::relative_difference;
using testing::run_threads;
using testing::same_bits;

// Several buckets of the chains: 4096 elements of f32.
constexpr std::int64_t kBucketBytes = std::int64_t{16} << 10;
constexpr double kTolerance = 1e-12;

// Two modules on one group, steps nested in one another, and collectives of the user in between.
TEST(ReplicaUse, ReplicasAndTheUsersOperationsShareAGroup) {
  for (const std::string engine : {"shm", "gloo"}) {
    run_threads(
        3,
        [](Group& group) {
          Chain a(2, at::kDouble, 1), b(3, at::kDouble, 2), plain_a(2, at::kDouble, 1),
              plain_b(3, at::kDouble, 2);
          Replica replica_a(a, group, {.bucket_bytes = kBucketBytes});
          Replica replica_b(b, group, {.micro_batches = 6, .bucket_bytes = kBucketBytes});
          for (std::int64_t step = 0; step < 3; ++step) {
            a.zero_grad(), b.zero_grad(), plain_a.zero_grad(), plain_b.zero_grad();
            std::vector<double> own{1.5 + group.rank()};
            replica_b.backward(chain_loss(b, step, 6, replica_b.micro_batches()[0]));
            replica_a.backward(chain_loss(a, step, 3, group.rank()));
            group.all_reduce(buffer_of(std::span(own)));
            EXPECT_EQ(own[0], 7.5);
            replica_b.backward(chain_loss(b, step, 6, replica_b.micro_batches()[1]));
            Work work = group.start_all_reduce(buffer_of(std::span(own)));
            replica_b.finish_gradients();
            replica_a.finish_gradients();
            work.wait();
            EXPECT_EQ(own[0], 22.5);
            for (std::int64_t m = 0; m < 3; ++m) (chain_loss(plain_a, step, 3, m) / 3).backward();
            for (std::int64_t m = 0; m < 6; ++m) (chain_loss(plain_b, step, 6, m) / 6).backward();
            EXPECT_LE(relative_difference(gradients_of(a), gradients_of(plain_a)), kTolerance);
            EXPECT_LE(relative_difference(gradients_of(b), gradients_of(plain_b)), kTolerance);
          }
        },
        engine);
  }
}

// After it the module is the user's again: nothing communicates, and it may be replicated anew.
TEST(ReplicaUse, LeavesAPlainModuleBehind) {
  run_threads(2, [](Group& group) {
    Chain chain(2);
    for (int life = 0; life < 2; ++life) {
      std::vector<at::Tensor> mean;
      {
        std::optional<Replica> first(std::in_place, chain, group);
        Replica replica = std::move(*first);
        first.reset();
        chain.zero_grad();
        replica.backward(chain_loss(chain, 0, 2, group.rank()));
        replica.finish_gradients();
        mean = gradients_of(chain);
      }
      EXPECT_TRUE(same_bits(gradients_of(chain), mean));
      chain.zero_grad();
      if (group.rank() == 0) chain_loss(chain, 0, 2, 0).backward();
    }
    // zero_grad() leaves none in LibTorch 2.
    const at::Tensor gradient = chain.weights[0].grad();
    EXPECT_EQ(gradient.defined() && gradient.abs().max().item<double>() > 0, group.rank() == 0);
  });
}

// Rank 2 begins its backward pass when the others have ended theirs, and first does what takes
// many times as long.
TEST(ReplicaUse, TheReportSaysWhomTheOthersWaitedFor) {
  std::promise<void> first_is_done, second_is_done;
  run_threads(3, [&](Group& group) {
    Chain chain(2), other(2);
    Replica replica(chain, group);
    for (int step = 0; step < 2; ++step) {
      if (step == 0 && group.rank() == 2) {
        first_is_done.get_future().wait();
        second_is_done.get_future().wait();
        for (int i = 0; i < 300; ++i) other.loss(0, 3).backward();
      }
      replica.backward(chain_loss(chain, step, 3, group.rank()));
      if (step == 0 && group.rank() < 2) {
        (group.rank() == 0 ? first_is_done : second_is_done).set_value();
      }
      replica.finish_gradients();
      EXPECT_EQ(replica.report().waited_for_rank, step == 0 ? -1 : 2) << "of the step before";
      EXPECT_EQ(replica.report().skew_us > 0, step == 1);
    }
  });
}

TEST(ReplicaUse, OneBackwardPassTooManyIsRefusedByName) {
  run_threads(1, [](Group& group) {
    Chain chain(1);
    Replica one(chain, group);
    one.backward(chain_loss(chain, 0, 1, 0));
    EXPECT_THAT(failure_of([&] { one.backward(chain_loss(chain, 0, 1, 0)); }),
                HasSubstr("a step has 1 backward pass on each rank, and this is one more"));
    EXPECT_THAT(failure_of([&] { chain_loss(chain, 0, 1, 0).backward(); }),
                HasSubstr("a step has 1 backward pass on each rank, and this is one more"));
  });
  run_threads(1, [](Group& group) {
    Chain chain(1);
    Replica one(chain, group);
    one.backward(chain_loss(chain, 0, 1, 0));
    const std::vector<at::Tensor> gradients = gradients_of(chain);
    EXPECT_THAT(failure_of([&] { one.backward(chain_loss(chain, 0, 1, 0)); }),
                HasSubstr("one more before finish_gradients()"));
    one.finish_gradients();
    EXPECT_TRUE(same_bits(gradients_of(chain), gradients)) << "a refused pass adds nothing";
    chain_loss(chain, 0, 1, 0).backward();
    EXPECT_THAT(failure_of([&] { chain_loss(chain, 0, 1, 0).backward(); }),
                AllOf(HasSubstr("0 is already on its way"), HasSubstr("finish_gradients()")));
  });
  run_threads(1, [](Group& group) {
    Chain chain(1);
    Replica four(chain, group, {.micro_batches = 4});
    EXPECT_THAT(failure_of([&] { chain_loss(chain, 0, 4, 0).backward(); }),
                AllOf(HasSubstr("4 micro-batches"), HasSubstr("backward(loss) of the replica")));
  });
  run_threads(1, [](Group& group) {
    Chain chain(1);
    Replica four(chain, group, {.micro_batches = 4});
    for (int i = 0; i < 4; ++i) four.backward(chain_loss(chain, 0, 4, i));
    EXPECT_THAT(failure_of([&] { four.backward(chain_loss(chain, 0, 4, 0)); }),
                HasSubstr("a step has 4 backward passes on each rank"));
  });
}

TEST(ReplicaUse, WeightsAreNumbers) {
  run_threads(1, [](Group& group) {
    Chain chain(1);
    Replica replica(chain, group);
    for (const double weight : {-1.0, std::nan(""), HUGE_VAL}) {
      EXPECT_THAT(failure_of([&] { replica.backward(chain_loss(chain, 0, 1, 0), weight); }),
                  HasSubstr("weight"));
    }
    replica.backward(chain_loss(chain, 0, 1, 0), 0.25);
    replica.finish_gradients();
    EXPECT_EQ(replica.report().weight, 0.25);
  });
}

TEST(ReplicaUse, ModelsAndOptionsThatDifferAreRefusedOnAllRanks) {
  run_threads(3, [](Group& group) {
    Chain chain(group.rank() == 2 ? 3 : 2);
    EXPECT_THAT(failure_of([&] { Replica(chain, group); }),
                AllOf(HasSubstr("ConfigError"), HasSubstr("rank 2 has parameter weight2"),
                      HasSubstr("rank 0 has nothing more")));
    Chain alike(2, at::kFloat);
    ReplicaOptions other;
    const auto expect_refused = [&](const ReplicaOptions& differing, const std::string& what) {
      EXPECT_THAT(failure_of([&] {
                    Replica(alike, group, group.rank() == 1 ? differing : ReplicaOptions{});
                  }),
                  AllOf(HasSubstr("ConfigError"), HasSubstr("rank 1 has"), HasSubstr(what)));
    };
    expect_refused({.micro_batches = 6}, "micro_batches 6");
    expect_refused({.bucket_bytes = 4096}, "bucket_bytes 4096");
    expect_refused({.compression = CompressionOptions{Int8Compression{}}}, "compression int8");
    expect_refused({.broadcast_buffers = false}, "broadcast_buffers false");
    Replica fine(alike, group);
    fine.backward(chain_loss(alike, 0, 3, 0));
    fine.finish_gradients();
  });
}

}  // namespace
}  // namespace trireme
