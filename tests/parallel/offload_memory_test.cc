// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What lies where in a ShardedModel with offload, and that both sides have the same weights.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/support/devices.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/optim/optimizer.h"
#include "trireme/optim/weight_average.h"
#include "trireme/parallel/shard/sharded_model.h"

namespace trireme {
namespace {

using testing::run_threads;

at::Tensor formula(std::int64_t elements, double phase) {
  return (torch::arange(elements, torch::kDouble) * 0.37 + phase).sin().to(at::kFloat);
}

class OffloadedWeights : public ::testing::TestWithParam<c10::Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, OffloadedWeights, ::testing::ValuesIn(testing::devices()),
                         testing::device_name);

// The weights that compute, gathered by a forward pass in stage 3: entries one after the other.
at::Tensor computing_weights(testing::Chain& chain, ShardedModel& sharded) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> all;
  sharded.forward([&] {
    for (const at::Tensor& parameter : sharded.layout().parameters) {
      all.push_back(parameter.reshape({-1}).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true));
    }
    return chain.weights[0].sum();
  });
  return torch::cat(all).cpu();
}

at::Tensor entries_of(const ShardedModel& sharded, const at::Tensor& whole) {
  std::vector<at::Tensor> all;
  for (const FlatEntry& entry : sharded.layout().entries) {
    all.push_back(whole.narrow(0, entry.offset, entry.count));
  }
  return torch::cat(all);
}

TEST_P(OffloadedWeights, WeightsThatAreSetComputeAndComeBack) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int stage : {0, 1, 2, 3}) {
      run_threads(3, [&](Group& group) {
        testing::Chain chain(3, at::kFloat);
        chain.to(GetParam());
        ShardedModel sharded(chain, group, {.stage = stage, .dtype = dtype, .offload = true});
        const std::string what = fmt::format("stage {}, {}", stage, c10::toString(dtype));
        const auto expect_weights = [&](const at::Tensor& whole) {
          const at::Tensor rounded = entries_of(sharded, whole).to(dtype).to(at::kFloat);
          EXPECT_TRUE(computing_weights(chain, sharded).equal(rounded)) << what;
          const at::Tensor gathered = sharded.gather_weights();
          EXPECT_EQ(gathered.defined(), group.rank() == 0) << what;
          if (group.rank() == 0) {
            EXPECT_TRUE(gathered.is_cpu());
            EXPECT_TRUE(gathered.equal(whole)) << what;
          }
        };
        EXPECT_EQ(sharded.layout().parameters[0].device(), GetParam());
        optim::WeightAverage average(0.9, sharded.pieces());
        at::Tensor first = sharded.gather_weights();
        if (group.rank() != 0) first = torch::zeros({sharded.layout().size});
        group.broadcast(
            buffer_of(std::span(first.data_ptr<float>(), static_cast<std::size_t>(first.numel()))),
            0);
        expect_weights(first);
        // At once one after the other: the second must not meet the copies of the first.
        const at::Tensor second = formula(sharded.layout().size, 0.3);
        sharded.set_weights(formula(sharded.layout().size, 0.9));
        sharded.set_weights(second);
        expect_weights(second);
        average.swap(sharded.pieces());
        sharded.publish_weights();
        expect_weights(first);
      });
    }
  }
}

// Where they lie: pieces with masters and gradients on the host, what computes on the device.
TEST_P(OffloadedWeights, TheHostHasWhatIsUpdated) {
  for (const int stage : {0, 1, 2, 3}) {
    run_threads(GetParam().is_cpu() ? 2 : 1, [&](Group& group) {
      testing::Chain chain(2, at::kFloat);
      chain.to(GetParam());
      ShardedModel sharded(chain, group, {.stage = stage, .dtype = at::kBFloat16, .offload = true});
      EXPECT_EQ(sharded.space().device, c10::Device(at::kCPU));
      sharded.backward(sharded.forward([&] {
        const at::Tensor x = testing::formula_samples(group.rank(), 4, chain.kWidth, at::kBFloat16);
        return chain.forward(x.to(GetParam())).to(at::kFloat).square().mean();
      }));
      sharded.finish_gradients();
      for (const optim::PieceUpdate& piece : sharded.pieces()) {
        EXPECT_TRUE(piece.weights.is_cpu());
        EXPECT_TRUE(piece.gradients.is_cpu());
        EXPECT_TRUE(piece.working_copy.is_cpu());
        EXPECT_EQ(piece.weights.scalar_type(), at::kFloat);
        EXPECT_EQ(piece.gradients.scalar_type(), at::kFloat);
        EXPECT_EQ(piece.working_copy.scalar_type(), at::kBFloat16);
      }
      for (const at::Tensor& parameter : chain.parameters()) {
        EXPECT_EQ(parameter.device(), GetParam());
        EXPECT_FALSE(parameter.grad().defined());
        for (const optim::PieceUpdate& piece : sharded.pieces()) {
          EXPECT_NE(parameter.data_ptr(), piece.working_copy.data_ptr());
        }
      }
      sharded.drop_gradients();
    });
  }
}

// What the header says of each stage, for one rank of two: bytes for each element of the flat
// buffers.
struct Bytes {
  int stage;
  at::ScalarType dtype;
  double weights;    // on the device (none in stage 3) and on the host
  double gradients;  // on the host, with one micro-batch
};

TEST(OffloadMemory, IsWhatTheHeaderSays) {
  install_caching_allocator();
  const std::vector<Bytes> table = {
      {0, at::kFloat, 4 + 4, 4},    {0, at::kBFloat16, 2 + 6, 4}, {1, at::kFloat, 4 + 2, 4},
      {1, at::kBFloat16, 2 + 3, 4}, {2, at::kFloat, 4 + 2, 2},    {2, at::kBFloat16, 2 + 3, 2},
      {3, at::kFloat, 2, 2},        {3, at::kBFloat16, 3, 2},
  };
  for (const Bytes& bytes : table) {
    const MemoryReport before = process_memory().report();
    const auto added = [&](MemoryCategory category) {
      return process_memory().report().current[category] - before.current[category];
    };
    run_threads(2, [&](Group& group) {
      const std::string what = fmt::format("stage {}, {}", bytes.stage, c10::toString(bytes.dtype));
      struct Net : torch::nn::Module {
        explicit Net(int units) {
          for (int i = 0; i < units; ++i) {
            chains.push_back(register_module(std::to_string(i),
                                             std::make_shared<testing::Chain>(2, at::kFloat, i)));
            all.push_back(chains.back().get());
          }
        }
        std::vector<std::shared_ptr<testing::Chain>> chains;
        std::vector<const torch::nn::Module*> all;
      };
      constexpr int kUnits = 8;
      Net net(kUnits);
      ShardedModel sharded(
          net, group,
          {.stage = bytes.stage, .dtype = bytes.dtype, .units = net.all, .offload = true});
      const auto step = [&] {
        at::Tensor x =
            testing::formula_samples(group.rank(), 3, testing::Chain::kWidth, bytes.dtype);
        sharded.backward(sharded.forward([&] {
          for (const auto& chain : net.chains) {
            x = sharded.run(*chain, x, [&](const at::Tensor& y) { return chain->forward(y); });
          }
          return x.to(at::kFloat).square().mean();
        }));
        sharded.finish_gradients();
        sharded.drop_gradients();
      };
      step();
      step();
      group.barrier();
      if (group.rank() == 0) {
        const auto both_ranks = 2 * static_cast<double>(sharded.layout().size);
        EXPECT_EQ(added(MemoryCategory::kWeights), bytes.weights * both_ranks) << what;
        EXPECT_EQ(added(MemoryCategory::kGradients), bytes.gradients * both_ranks) << what;
        // Units: gradients of the one that is computed and three on their way on the device, four
        // on the host (stages 2 and 3); weights of two on the host (not stage 0), and on the device
        // those of stage 3: this one, the next, and the one before.
        const auto unit = both_ranks / kUnits;
        const double width = bytes.dtype == at::kFloat ? 4 : 2;
        const double most = 4 * 4 + (bytes.stage >= 2 ? 4 * 4 : 0) +
                            (bytes.stage >= 1 ? 2 * width : 0) + (bytes.stage == 3 ? 3 * width : 0);
        EXPECT_LE(added(MemoryCategory::kWorkspace), most * unit) << what;
        EXPECT_GT(added(MemoryCategory::kWorkspace), 4 * unit) << what;
      }
      group.barrier();
    });
    EXPECT_EQ(added(MemoryCategory::kWeights), 0);
    EXPECT_EQ(added(MemoryCategory::kGradients), 0);
    EXPECT_EQ(added(MemoryCategory::kWorkspace), 0);
  }
}

}  // namespace
}  // namespace trireme
