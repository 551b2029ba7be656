// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/data/replica.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <mutex>
#include <string>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/parallel/flat_parameters.h"

namespace trireme {
namespace {

using testing::formula_tokens;
using testing::run_threads;

constexpr std::int64_t kMicroBatches = 8;
// Several buckets of the small model.
constexpr std::int64_t kBucketBytes = std::int64_t{16} << 10;

at::Tensor loss_of(nn::Transformer& model, std::int64_t micro_batch) {
  return model->loss(formula_tokens(2, 11, 37, micro_batch),
                     formula_tokens(2, 11, 37, micro_batch + 1));
}

// Weights after five steps of plain gradient descent on eight micro-batches each.
at::Tensor train(Group& group, const std::string& family, const ReplicaOptions& options) {
  nn::Transformer model(testing::small_model_config(family));
  nn::initialize(*model, static_cast<std::uint64_t>(3 + group.rank()));  // rank 0's counts
  Replica replica(*model, group, options);
  EXPECT_GT(replica.num_buckets(), 2U);
  for (std::int64_t step = 0; step < 5; ++step) {
    for (at::Tensor& parameter : model->parameters()) parameter.mutable_grad().zero_();
    for (const std::int64_t m : replica.micro_batches()) {
      replica.backward(loss_of(model, step * kMicroBatches + m));
    }
    replica.finish_gradients();
    const at::NoGradGuard no_grad;
    for (at::Tensor& parameter : model->parameters()) parameter.sub_(parameter.grad(), 0.1);
  }
  return replica.flat().data().clone();
}

TEST(Replica, TrainsTheSameModelOnAnyNumberOfRanks) {
  for (const std::string family : {"gpt2", "llama"}) {
    const ReplicaOptions options{.micro_batches = kMicroBatches, .bucket_bytes = kBucketBytes};
    at::Tensor expected;
    run_threads(1, [&](Group& group) { expected = train(group, family, options); });
    EXPECT_GT(expected.abs().sum().item<double>(), 0.0);
    for (const int ranks : {2, 4}) {
      run_threads(ranks, [&](Group& group) {
        EXPECT_TRUE(train(group, family, options).equal(expected))
            << family << ", rank " << group.rank() << " of " << ranks;
      });
    }
  }
}

}  // namespace
}  // namespace trireme
