// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Replicas whose gradients travel encoded.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <atomic>
#include <cmath>
#include <optional>
#include <string>
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
using testing::run_threads;
using testing::same_bits;

// Several buckets of the chains: 4096 elements of f32.
constexpr std::int64_t kBucketBytes = std::int64_t{16} << 10;
constexpr double kTolerance = 1e-12;

// One rank's overflow is everyone's, in the same bits, with every codec.
std::vector<std::optional<CompressionOptions>> all_codecs() {
  return {std::nullopt, CompressionOptions{Bf16Compression{}},
          CompressionOptions{Int8Compression{}},
          CompressionOptions{TopKCompression{.fraction = 0.25}},
          CompressionOptions{LowRankCompression{.components = 3}}};
}

TEST(ReplicaCodec, ANanOnOneRankIsSeenByAll) {
  const auto codecs = all_codecs();
  for (std::size_t codec = 0; codec < codecs.size(); ++codec) {
    std::vector<std::vector<at::Tensor>> gradients(3);
    run_threads(3, [&](Group& group) {
      Chain chain(2, at::kFloat);
      Replica replica(chain, group, {.bucket_bytes = kBucketBytes, .compression = codecs[codec]});
      const double factor = group.rank() == 1 ? std::nan("") : 1.0;
      replica.backward(chain_loss(chain, 0, 3, group.rank()) * factor);
      replica.finish_gradients();
      auto& own = gradients[static_cast<std::size_t>(group.rank())];
      own = gradients_of(chain);
      for (std::size_t i = 0; i < own.size(); ++i) {
        EXPECT_TRUE(own[i].isnan().any().item<bool>())
            << "codec " << codec << ", parameter " << i << ", rank " << group.rank();
        own[i] = own[i].isfinite();
      }
      // Gone with the step.
      chain.zero_grad();
      replica.backward(chain_loss(chain, 1, 3, group.rank()));
      replica.finish_gradients();
      for (const at::Tensor& gradient : gradients_of(chain)) {
        EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << "codec " << codec;
      }
    });
    EXPECT_TRUE(same_bits(gradients[1], gradients[0])) << codec;
    EXPECT_TRUE(same_bits(gradients[2], gradients[0])) << codec;
  }
}

// Bounds of docs/compression.md for one exchange of random values, with room: what is meant is that
// the codec was used, and was not used twice.
TEST(ReplicaCodec, CodecsKeepTheirBoundsAndRanksTheirBits) {
  const std::vector<double> most{1e-6, 0x1p-8, 0.02, 0.75, 1.0};
  const std::vector<double> least{0, 1e-5, 1e-4, 1e-3, 1e-3};
  const auto codecs = all_codecs();
  for (std::size_t codec = 0; codec < codecs.size(); ++codec) {
    std::vector<std::vector<at::Tensor>> gradients(3);
    std::atomic<std::int64_t> sent = 0;
    std::int64_t elements = 0;
    run_threads(3, [&](Group& group) {
      Chain chain(2, at::kFloat), plain(2);
      Replica replica(chain, group, {.bucket_bytes = kBucketBytes, .compression = codecs[codec]});
      replica.backward(chain_loss(chain, 0, 3, group.rank()));
      replica.finish_gradients();
      gradients[static_cast<std::size_t>(group.rank())] = gradients_of(chain);
      sent += replica.bytes_sent();
      if (group.rank() != 0) return;
      elements = replica.flat().size();
      for (std::int64_t m = 0; m < 3; ++m) (chain_loss(plain, 0, 3, m) / 3).backward();
      const double difference = [&] {
        double squares = 0, all = 0;
        for (std::size_t i = 0; i < gradients[0].size(); ++i) {
          const at::Tensor expected = plain.parameters()[i].grad();
          squares += (gradients[0][i] - expected).square().sum().item<double>();
          all += expected.square().sum().item<double>();
        }
        return std::sqrt(squares / all);
      }();
      double in_parameters = 0;
      for (const at::Tensor& gradient : gradients[0]) {
        in_parameters += gradient.abs().sum(at::kDouble).item<double>();
      }
      EXPECT_NEAR(replica.flat().grad().abs().sum(at::kDouble).item<double>() / in_parameters, 1,
                  kTolerance)
          << "gaps stay zeros, codec " << codec;
      EXPECT_LE(difference, most[codec]) << codec;
      EXPECT_GE(difference, least[codec]) << codec;
    });
    EXPECT_TRUE(same_bits(gradients[1], gradients[0])) << codec;
    EXPECT_TRUE(same_bits(gradients[2], gradients[0])) << codec;
    const std::int64_t plain_bytes = 2 * (3 - 1) * 4 * elements;
    if (codec == 0) {
      EXPECT_GE(sent.load(), plain_bytes);
    } else {
      EXPECT_LE(sent.load(), plain_bytes * 6 / 10) << codec;
    }
  }
}

TEST(ReplicaCodec, CodecsAreForFloats) {
  run_threads(2, [](Group& group) {
    Chain chain(1);
    EXPECT_THAT(failure_of([&] {
                  Replica(chain, group, {.compression = CompressionOptions{Bf16Compression{}}});
                }),
                AllOf(HasSubstr("ConfigError"), HasSubstr("Double")));
    group.barrier();
  });
}

}  // namespace
}  // namespace trireme
