// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A model whose experts are spread over ranks, each with micro-batches of its own, against the same
// model on one rank with all of them.

#include "trireme/parallel/expert/expert_parallel.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <map>
#include <mutex>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"
#include "tests/support/ranks.h"
#include "trireme/base/random.h"
#include "trireme/nn/parameter_memory.h"
#include "trireme/nn/router_bias.h"
#include "trireme/optim/optimizer.h"
#include "trireme/parallel/expert/row_exchange.h"
#include "trireme/parallel/shard/sharded_model.h"
#include "trireme/parallel/tensor_buffer.h"
#include "trireme/topology/mesh.h"

namespace trireme {
namespace {

using testing::deepseek_config;
using testing::failure_of;
using testing::formula_tokens;
using ::testing::HasSubstr;
using testing::mixtral_config;
using testing::run_threads;

constexpr std::int64_t kSequences = 2, kTokens = 11, kVocab = 37;

at::Tensor loss_of(nn::Transformer& model, std::int64_t micro_batch) {
  return model->loss(formula_tokens(kSequences, kTokens, kVocab, micro_batch),
                     formula_tokens(kSequences, kTokens, kVocab, micro_batch + 1));
}

// Values of whole parameters by name and element, large enough that all matters; a part has its
// own of them.
void fill(nn::Transformer& model) {
  const at::NoGradGuard no_grad;
  for (const auto& each : nn::parameters_with_roles(*model)) {
    at::Tensor whole = torch::empty(each.whole_shape(), at::kDouble);
    const RandomStream noise(3, each.name);
    auto* data = whole.data_ptr<double>();
    for (std::int64_t i = 0; i < whole.numel(); ++i) {
      data[i] = 0.25 * noise.normal(static_cast<std::uint64_t>(i));
    }
    if (each.part.dim >= 0) whole = whole.narrow(each.part.dim, each.part.begin, each.part.size);
    at::Tensor(each.tensor).copy_(whole);
  }
}

nn::Transformer whole_model(const nn::ModelConfig& config, at::ScalarType dtype) {
  nn::Transformer model(config);
  fill(model);
  model->to(dtype);
  return model;
}

std::vector<nn::ModelConfig> configs() {
  auto dropping = mixtral_config("gpt2");
  dropping.experts.capacity_factor = 0.8;
  auto deepseek = deepseek_config();
  deepseek.experts.z_coefficient = 0.01;
  return {mixtral_config(), deepseek, dropping};
}

double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

// Gradients of one rank's model, by name, of the micro-batches' summed losses.
std::map<std::string, at::Tensor> gradients_of_one(const nn::ModelConfig& config,
                                                   std::int64_t micro_batches, double* loss) {
  auto model = whole_model(config, at::kDouble);
  for (std::int64_t m = 0; m < micro_batches; ++m) {
    const at::Tensor one = loss_of(model, m);
    one.backward();
    *loss += one.item<double>();
  }
  std::map<std::string, at::Tensor> result;
  for (const auto& item : model->named_parameters()) result[item.key()] = item.value().grad();
  return result;
}

// Each of n ranks has 2 micro-batches, m and m + n.
TEST(ExpertParallel, GradientsAreThoseOfOneRank) {
  for (const nn::ModelConfig& config : configs()) {
    for (const auto recompute : {nn::Recompute::kNone, nn::Recompute::kBlocks}) {
      for (const int n : {1, 2, 4}) {
        double expected_loss = 0;
        const auto expected = gradients_of_one(config, 2 * n, &expected_loss);
        run_threads(n, [&](Group& ep) {
          auto model = whole_model(config, at::kDouble);
          const ExpertParallel spread = expert_parallel(*model, ep);
          model->set_recompute(recompute);
          double loss = 0;
          for (const std::int64_t m : {ep.rank(), ep.rank() + n}) {
            const at::Tensor one = loss_of(model, m);
            one.backward();
            loss += one.item<double>();
          }
          ep.all_reduce(buffer_of(std::span(&loss, 1)));
          EXPECT_NEAR(loss, expected_loss, 1e-10);
          sum_partial_gradients(*model, spread.parts());
          const auto [begin, end] = experts_of_rank(config.experts.count, ep.rank(), n);
          for (const auto& item : model->named_parameters()) {
            at::Tensor whole = expected.at(item.key());
            if (item.key().find(".experts.") != std::string::npos) {
              whole = whole.narrow(0, begin, end - begin);
            }
            EXPECT_LT(max_difference(item.value().grad(), whole), 1e-10)
                << item.key() << " on rank " << ep.rank() << " of " << n;
          }
          at::Tensor squares = torch::zeros({}, at::kDouble);
          for (const auto& [name, gradient] : expected) squares += gradient.square().sum();
          EXPECT_NEAR(whole_gradient_norm(*model, spread.parts()), squares.sqrt().item<double>(),
                      1e-9);
        });
      }
    }
  }
}

// In f32 a rank's own losses and choices have the bits that they have on one rank.
TEST(ExpertParallel, LossesAndChoicesHaveTheBitsOfOneRank) {
  for (const nn::ModelConfig& config : configs()) {
    run_threads(3, [&](Group& ep) {
      auto alone = whole_model(config, at::kFloat), model = whole_model(config, at::kFloat);
      const ExpertParallel spread = expert_parallel(*model, ep);
      EXPECT_TRUE(loss_of(model, ep.rank()).equal(loss_of(alone, ep.rank())));
      for (std::size_t l = 0; l < model->routing().size(); ++l) {
        EXPECT_TRUE(model->routing()[l].chosen_E.equal(alone->routing()[l].chosen_E));
        EXPECT_TRUE(model->routing()[l].dropped_E.equal(alone->routing()[l].dropped_E));
        EXPECT_TRUE(model->routing()[l].losses.equal(alone->routing()[l].losses));
      }
    });
  }
}

// What steps of AdamW leave: by name, the elements of parameters that this rank has (NaN
// elsewhere), flat, and buffers; the norm of each step's gradients.
struct Trained {
  std::map<std::string, at::Tensor> weights;
  std::vector<double> norms;
};

void keep_pieces(ShardedModel& sharded, Trained& trained) {
  for (std::size_t p = 0; p < sharded.pieces().size(); ++p) {
    const ShardPiece& piece = sharded.shard()[p];
    for (const FlatEntry& entry : sharded.layout().entries) {
      const std::int64_t begin = std::max(piece.begin, entry.offset);
      const std::int64_t end = std::min(piece.end, entry.offset + entry.count);
      if (begin >= end) continue;
      at::Tensor& whole =
          trained.weights.try_emplace(entry.name, torch::full({entry.count}, NAN)).first->second;
      whole.narrow(0, begin - entry.offset, end - begin)
          .copy_(sharded.pieces()[p].weights.narrow(0, begin - piece.begin, end - begin));
    }
  }
}

// 4 micro-batches a step, of dp x ep ranks.
Trained train(const nn::ModelConfig& config, Group& world, int dp_size, int stage) {
  constexpr std::int64_t kMicroBatches = 4;
  constexpr int kSteps = 3;
  const int ep_size = world.size() / dp_size;
  const Mesh mesh({{"dp", dp_size}, {"ep", ep_size}});
  const auto ep = world.split(mesh, "ep"), dp = world.split(mesh, "dp");
  auto model = [&] {
    const nn::ParametersWithoutMemory later;
    return nn::Transformer(config);
  }();
  const ExpertParallel spread = expert_parallel(*model, *ep);
  nn::give_memory(*model);
  fill(model);
  ShardedModel sharded(*model, *dp,
                       {.stage = stage,
                        .micro_batches = kMicroBatches / ep_size,
                        .units = model->blocks(),
                        .parts = spread.parts()});
  if (stage == 3) {
    model->set_recompute(nn::Recompute::kBlocks);
    model->set_block_runner([&](const auto& block, const auto& inputs, const auto& f) {
      return sharded.run(block, inputs, f);
    });
  }
  const auto optimizer = optim::make_optimizer({.name = "adamw"}, sharded.space());
  Trained trained;
  for (int step = 0; step < kSteps; ++step) {
    const at::Tensor chosen = nn::no_choices(*model);
    for (const std::int64_t m : sharded.micro_batches()) {
      const at::Tensor loss = sharded.forward(
          [&] { return loss_of(model, step * kMicroBatches + m * ep_size + ep->rank()); });
      nn::add_choices(*model, chosen);
      sharded.backward(loss);
    }
    sharded.finish_gradients();
    trained.norms.push_back(sharded.gradient_norm());
    sharded.step(*optimizer, 0.01, 1.0 / kMicroBatches);
    world.all_reduce(buffer_of_tensor(chosen));
    nn::update_router_bias(*model, chosen);
  }
  keep_pieces(sharded, trained);
  for (const auto& item : model->named_buffers()) {
    trained.weights[item.key()] = item.value().clone();
  }
  return trained;
}

// Against one rank; begin, end: the experts of this one.
void expect_near(const Trained& actual, const Trained& one, std::int64_t begin, std::int64_t end,
                 const std::string& what) {
  EXPECT_GT(actual.weights.size(), 5U) << what;
  for (const auto& [name, value] : actual.weights) {
    at::Tensor expected = one.weights.at(name);
    if (name.find(".experts.") != std::string::npos) {
      const std::int64_t each = expected.numel() / 7;
      expected = expected.narrow(0, begin * each, (end - begin) * each);
    }
    const at::Tensor here = value.isnan().logical_not();
    // A step of AdamW is 0.01 whatever the gradient: of tiny ones rounding decides.
    EXPECT_LT((value - expected).abs().masked_select(here).mean().item<double>(), 1e-5)
        << name << what;
  }
  for (std::size_t s = 0; s < one.norms.size(); ++s) {
    EXPECT_NEAR(actual.norms[s], one.norms[s], 1e-5 * one.norms[s]) << what;
  }
}

TEST(ExpertParallel, TrainsWithShardedOptimizersAsOneRankDoes) {
  const auto config = deepseek_config();
  Trained one;
  run_threads(1, [&](Group& world) { one = train(config, world, 1, 0); });
  for (const auto& [dp_size, ep_size] : {std::pair{1, 2}, {1, 4}, {2, 2}}) {
    for (const int stage : {0, 1, 2, 3}) {
      run_threads(dp_size * ep_size, [&, dp = dp_size, ep = ep_size](Group& world) {
        const auto [begin, end] = experts_of_rank(7, world.rank() % ep, ep);
        expect_near(train(config, world, dp, stage), one, begin, end,
                    fmt::format(", dp {}, ep {}, stage {}", dp, ep, stage));
      });
    }
  }
}

// What leaves a rank: its own rows for others and back what it made of theirs, in forward and
// backward, and counts.
TEST(ExpertParallel, TrafficIsThatOfTheRowsThatChangeRanks) {
  constexpr int kRanks = 3;
  const auto config = mixtral_config();
  const std::int64_t E = config.experts.count, C = config.width;
  // Rows of each layer from rank to rank.
  std::mutex mutex;
  std::map<std::pair<int, int>, std::int64_t> rows;
  std::vector<std::int64_t> sent(kRanks);
  run_threads(kRanks, [&](Group& ep) {
    auto model = whole_model(config, at::kFloat);
    const ExpertParallel spread = expert_parallel(*model, ep);
    loss_of(model, ep.rank()).backward();
    const std::lock_guard lock(mutex);
    sent[static_cast<std::size_t>(ep.rank())] = spread.bytes_sent();
    for (const auto& layer : model->routing()) {
      for (int to = 0; to < kRanks; ++to) {
        const auto [begin, end] = experts_of_rank(E, to, kRanks);
        rows[{ep.rank(), to}] +=
            layer.chosen_E.narrow(0, begin, end - begin).sum().item<std::int64_t>();
      }
    }
  });
  for (int rank = 0; rank < kRanks; ++rank) {
    std::int64_t moved = 0;
    for (int other = 0; other < kRanks; ++other) {
      if (other != rank) moved += rows[{rank, other}] + rows[{other, rank}];
    }
    const auto [begin, end] = experts_of_rank(E, rank, kRanks);
    const std::int64_t counts = config.layers * (E - (end - begin)) * 8;
    EXPECT_EQ(sent[static_cast<std::size_t>(rank)], 2 * moved * C * 4 + counts) << rank;
  }
}

TEST(ExpertParallel, RanksHaveExpertsInOrderAndAsManyButForOne) {
  using Part = std::pair<std::int64_t, std::int64_t>;
  const Part expected[] = {{0, 1}, {1, 3}, {3, 5}, {5, 7}};
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(experts_of_rank(7, rank, 4), expected[rank]);
  EXPECT_EQ(experts_of_rank(7, 0, 1), Part(0, 7));
}

TEST(ExpertParallel, ARankHasItsShareOfTheExpertsInMemory) {
  const auto config = deepseek_config();
  run_threads(3, [&](Group& ep) {
    auto model = [&] {
      const nn::ParametersWithoutMemory later;
      return nn::Transformer(config);
    }();
    const ExpertParallel spread = expert_parallel(*model, ep);
    std::int64_t elements = 0;
    for (const nn::MixtureOfExpertsImpl* mixture : model->mixtures()) {
      for (const auto& each :
           const_cast<nn::MixtureOfExpertsImpl*>(mixture)->experts().parameters()) {
        EXPECT_TRUE(nn::has_memory(each));
        EXPECT_EQ(each.storage().nbytes(), static_cast<std::size_t>(each.numel()) * 4);
        elements += each.numel();
      }
    }
    const std::int64_t kept = ep.rank() == 2 ? 3 : 2;  // of 7
    EXPECT_EQ(elements, 2 * kept * 3 * 24 * 12);
    nn::initialize(*model, 5);
    nn::Transformer whole(config);
    nn::initialize(*whole, 5);
    const auto [begin, end] = experts_of_rank(7, ep.rank(), 3);
    const std::string name = "blocks.2.mlp.experts.down";
    EXPECT_TRUE(model->named_parameters()[name].equal(
        whole->named_parameters()[name].narrow(0, begin, end - begin)));
  });
}

TEST(ExpertParallel, RefusesWhatDoesNotFit) {
  run_threads(2, [](Group& ep) {
    nn::Transformer dense(testing::small_model_config("llama"));
    EXPECT_THAT(failure_of([&] { expert_parallel(*dense, ep); }),
                HasSubstr("ConfigError: a model without experts"));
    auto config = mixtral_config();
    config.experts.count = 1;
    config.experts.top_k = 1;
    nn::Transformer few(config);
    EXPECT_THAT(failure_of([&] { expert_parallel(*few, ep); }),
                HasSubstr("ConfigError: 1 experts cannot be spread over 2 ranks of ep, each of "
                          "which keeps at least one: at most 1 ranks fit"));
  });
}

// Row v of rank r to rank j: 100 r + 10 j + v, as many as r + 2 j; some ranks get none of some.
TEST(ExchangeRows, GoThereAndTheirGradientsBack) {
  for (const int n : {1, 2, 3, 4}) {
    run_threads(n, [&](Group& group) {
      const int rank = group.rank();
      const auto count = [](int from, int to) { return std::int64_t{(from + 2 * to) % 4}; };
      std::vector<std::int64_t> send, receive;
      std::vector<double> sent, expected;
      for (int other = 0; other < n; ++other) {
        send.push_back(count(rank, other));
        receive.push_back(count(other, rank));
        for (int v = 0; v < send.back(); ++v) sent.push_back(100 * rank + 10 * other + v);
        for (int v = 0; v < receive.back(); ++v) expected.push_back(100 * other + 10 * rank + v);
      }
      const auto column = [](const std::vector<double>& values) {
        return torch::tensor(values, at::kDouble).view({-1, 1});
      };
      for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
        const at::Tensor offsets = torch::tensor({{0.0, 0.25, 0.5}}, at::kDouble);
        const at::Tensor x = (column(sent) + offsets).to(dtype).requires_grad_();
        const at::Tensor y = detail::exchange_rows(x, send, receive, group);
        EXPECT_TRUE(y.equal((column(expected) + offsets).to(dtype)));
        // The gradient of what was received goes back to where it came from.
        y.backward(y.detach() * 2);
        EXPECT_TRUE(x.grad().equal(x.detach() * 2));
      }
    });
  }
}

}  // namespace
}  // namespace trireme
