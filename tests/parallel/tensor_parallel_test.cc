// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/mesh_training.h"
#include "tests/support/ranks.h"
#include "trireme/parallel/tensor/parallelize.h"

namespace trireme {
namespace {

using testing::expect_trains_as_one_rank;
using ::testing::HasSubstr;
using testing::MeshRun;
using testing::run_threads;
using testing::trained_whole;

TEST(TensorParallel, EveryNumberOfRanksTrainsTheModelOfOne) {
  for (const bool sequence : {false, true}) {
    for (const auto& [family, ranks] :
         {std::pair<std::string, std::vector<int>>{"gpt2", {1, 2, 3, 4}},
          {"llama", {2, 4}},
          {"uneven", {1, 2, 3, 6}}}) {
      for (const int tp : ranks) {
        expect_trains_as_one_rank({.family = family, .tp = tp, .sequence = sequence});
      }
    }
  }
}

TEST(TensorParallel, BesideDataParallelism) {
  for (const bool sequence : {false, true}) {
    for (const auto& [dp, tp] : {std::pair{2, 2}, {4, 2}, {2, 4}, {2, 3}}) {
      const std::string family = tp == 3 ? "uneven" : "llama";
      expect_trains_as_one_rank({.family = family, .dp = dp, .tp = tp, .sequence = sequence});
    }
  }
}

// Of 33 rows, 11 or 16 and 17 on a rank: 2, 3 and 7 chunks of them, and more chunks than rows.
TEST(TensorParallel, ExchangesBesideProducts) {
  for (const bool sequence : {false, true}) {
    for (const int chunks : {2, 3, 7, 40}) {
      expect_trains_as_one_rank(
          {.family = "dropout", .tp = 3, .sequence = sequence, .chunks = chunks, .steps = 5});
      expect_trains_as_one_rank({.family = "llama",
                                 .dp = 2,
                                 .tp = 2,
                                 .sequence = sequence,
                                 .chunks = chunks,
                                 .steps = 5});
    }
    for (const auto recompute : {nn::Recompute::kActivations, nn::Recompute::kBlocks}) {
      expect_trains_as_one_rank({.family = "uneven",
                                 .tp = 2,
                                 .sequence = sequence,
                                 .chunks = 2,
                                 .recompute = recompute,
                                 .steps = 3});
    }
  }
}

TEST(TensorParallel, DropsTheSameElements) {
  const std::vector<double>& plain = trained_whole("gpt2", 20).losses;
  const std::vector<double>& dropped = trained_whole("dropout", 20).losses;
  EXPECT_GT(std::abs(plain[1] - dropped[1]), 1e-3);
  for (const bool sequence : {false, true}) {
    expect_trains_as_one_rank({.family = "dropout", .tp = 3, .sequence = sequence});
    expect_trains_as_one_rank({.family = "dropout", .dp = 2, .tp = 2, .sequence = sequence});
  }
}

TEST(TensorParallel, RecomputesWhatItDoesNotKeep) {
  for (const auto recompute : {nn::Recompute::kActivations, nn::Recompute::kBlocks}) {
    for (const std::string family : {"dropout", "uneven"}) {
      for (const bool sequence : {false, true}) {
        expect_trains_as_one_rank(
            {.family = family, .tp = 2, .sequence = sequence, .recompute = recompute, .steps = 3});
      }
    }
  }
}

// The tests above would see a sum that is left out.
TEST(TensorParallel, AnyMissingSumShows) {
  std::vector<std::string> partial;
  run_threads(2, [&](Group& world) {
    nn::Transformer model = testing::transformer_without_memory(testing::mesh_config("gpt2"));
    const TensorParallel cut = parallelize(*model, world, {.sequence = true});
    if (world.rank() == 0) partial = cut.parts().partial.at(0).parameters;
  });
  // Positions; per block two norms of two and two biases; the last norm.
  ASSERT_EQ(partial.size(), 1U + 2 * (2 * 2 + 2) + 2);
  const testing::TrainedSteps& expected = trained_whole("gpt2", 20);
  for (const std::string& name : partial) {
    MeshRun run{.family = "gpt2", .tp = 2, .sequence = true, .steps = 1};
    run.spoil = [&](ModelParts& parts) { std::erase(parts.partial.at(0).parameters, name); };
    run_threads(2, [&](Group& world) {
      EXPECT_GT(testing::train_parts(world, run, expected), 1e-3) << name;
    });
  }
}

TEST(TensorParallel, AMissingSumOfASharedKeyHeadShows) {
  const testing::TrainedSteps& expected = trained_whole("llama", 20);
  MeshRun run{.family = "llama", .tp = 4, .steps = 1};
  run.spoil = [&](ModelParts& parts) {
    ASSERT_EQ(parts.partial.size(), 1U);
    EXPECT_EQ(parts.partial[0].group->size(), 2);
    EXPECT_EQ(parts.partial[0].parameters.size(), 4U) << "k and v of two blocks";
    parts.partial[0].parameters.erase(parts.partial[0].parameters.begin());
  };
  run_threads(4,
              [&](Group& world) { EXPECT_GT(testing::train_parts(world, run, expected), 1e-3); });
}

TEST(TensorParallel, EachNormCountsWhatIsOnSeveralRanksOnce) {
  const testing::TrainedSteps& expected = trained_whole("llama", 20);
  MeshRun run{.family = "llama", .tp = 4, .steps = 1};
  run.spoil = [&](ModelParts& parts) { parts.counted_elsewhere.clear(); };
  run_threads(4,
              [&](Group& world) { EXPECT_GT(testing::train_parts(world, run, expected), 1e-3); });
}

TEST(TensorParallel, GivesLogitsAndDecodesAsOneRank) {
  for (const std::string family : {"gpt2", "llama"}) {
    nn::Transformer whole(testing::mesh_config(family));
    nn::initialize(*whole, 11);
    whole->to(at::kDouble);
    const at::Tensor tokens = testing::formula_tokens(3, 9, 37);
    const at::Tensor expected = whole->forward(tokens);
    for (const bool sequence : {false, true}) {
      run_threads(2, [&](Group& world) {
        nn::Transformer model = testing::transformer_without_memory(testing::mesh_config(family));
        const TensorParallel cut = parallelize(*model, world, {.sequence = sequence});
        nn::initialize(*model, 11);
        model->to(at::kDouble);
        EXPECT_LT((model->forward(tokens) - expected).abs().max().item<double>(), 1e-12);
        nn::KvCache cache;
        model->decode(tokens.narrow(1, 0, 5), cache);
        const at::Tensor last = model->decode(tokens.narrow(1, 5, 4), cache);
        EXPECT_LT((last - expected.select(1, 8)).abs().max().item<double>(), 1e-6);
      });
    }
  }
}

TEST(TensorParallel, ARankHasItsPartAlone) {
  run_threads(3, [&](Group& world) {
    nn::Transformer model = testing::transformer_without_memory(testing::mesh_config("uneven"));
    const TensorParallel cut = parallelize(*model, world);
    nn::give_memory(*model);
    std::int64_t own = 0, whole = 0;
    for (const nn::RoledParameter& parameter : nn::parameters_with_roles(*model)) {
      EXPECT_TRUE(nn::has_memory(parameter.tensor)) << parameter.name;
      EXPECT_TRUE(parameter.tensor.is_contiguous()) << parameter.name;
      own += parameter.tensor.numel();
      whole += c10::multiply_integers(parameter.whole_shape());
    }
    EXPECT_EQ(whole, testing::mesh_config("uneven").num_parameters());
    EXPECT_LT(static_cast<double>(own), 1.1 / 3 * static_cast<double>(whole));
    EXPECT_EQ(cut.parts().counted_elsewhere.size(), world.rank() == 0 ? 0U : 5U) << "the norms";
    EXPECT_TRUE(cut.parts().partial.empty());
  });
}

// Of n ranks, for N tokens: n - 1 of n parts of N C elements twice in an all_reduce, and once in an
// all_gather and in a reduce_scatter; to the loss two f64 a token from each to all others. Of so
// many tokens that an all_reduce does not go the short way of small ones.
TEST(TensorParallel, SendsWhatTheFormulaSays) {
  constexpr std::int64_t kRanks = 3, kTokens = 33 * 8, kLayers = 2, kElement = sizeof(float);
  const std::int64_t exchange = (kRanks - 1) * kTokens / kRanks * 24 * kElement;
  const std::int64_t loss = (kRanks - 1) * kTokens * 2 * std::int64_t{sizeof(double)};
  const at::Tensor tokens = testing::formula_tokens(kTokens / 11, 11, 37);
  for (const bool sequence : {false, true}) {
    run_threads(kRanks, [&](Group& world) {
      nn::Transformer model = testing::transformer_without_memory(testing::mesh_config("gpt2"));
      const TensorParallel cut = parallelize(*model, world, {.sequence = sequence});
      nn::initialize(*model, 11);
      auto sent = [&, before = cut.group().bytes_sent()]() mutable {
        const std::int64_t now = cut.group().bytes_sent();
        return now - std::exchange(before, now);
      };
      const at::Tensor value = model->loss(tokens, tokens);
      EXPECT_EQ(sent(), (2 + 4 * kLayers) * exchange + loss) << sequence;
      value.backward();
      const std::int64_t again = sequence ? 2 * kLayers : 0;
      EXPECT_EQ(sent(), (2 + 4 * kLayers + again) * exchange) << sequence;
    });
  }
}

TEST(TensorParallel, RefusesAPlanThatDoesNotFitBeforeAnythingIsCut) {
  run_threads(1, [&](Group& world) {
    nn::Transformer model(testing::mesh_config("gpt2"));
    const auto refusal = [&](const TensorPlan& plan) {
      return testing::failure_of([&] { parallelize(*model, world, plan); });
    };
    const TensorPlan good = tensor_plan(model->config());
    TensorPlan plan = good;
    std::erase_if(plan, [](const TensorRule& rule) { return rule.pattern == "blocks.*.mlp.up"; });
    EXPECT_THAT(refusal(plan), HasSubstr("ConfigError: no rule of the tensor-parallel plan names "
                                         "the layer blocks.0.mlp.up: add one"));
    plan = good;
    plan.push_back({"adapter.up", TensorCut::kOutputs});
    EXPECT_EQ(refusal(plan),
              "ConfigError: the rule adapter.up of the tensor-parallel plan names no layer of the "
              "model");
    plan = good;
    for (TensorRule& rule : plan) {
      if (rule.pattern == "final_norm") rule.cut = TensorCut::kInputs;
    }
    EXPECT_THAT(refusal(plan), HasSubstr("cuts final_norm by inputs, which a "));
    for (const nn::RoledParameter& parameter : nn::parameters_with_roles(*model)) {
      EXPECT_EQ(parameter.part.dim, -1) << parameter.name;
    }
  });
}

struct LogitsWithBias : torch::nn::Module {
  LogitsWithBias() { register_module("head", head); }
  nn::Linear head{5, 7, nn::LinearOptions{.bias = true}};
};

TEST(TensorParallel, RefusesWhatItWouldGetWrong) {
  run_threads(2, [&](Group& world) {
    nn::Transformer experts(testing::mesh_config("experts"));
    EXPECT_THAT(testing::failure_of([&] { parallelize(*experts, world, {.sequence = true}); }),
                HasSubstr("ConfigError: sequence parallelism of a model with experts"));
    EXPECT_THAT(testing::failure_of([&] { parallelize(*experts, world, {.chunks = 0}); }),
                HasSubstr("ConfigError: 0 chunks"));
    LogitsWithBias logits;
    EXPECT_THAT(testing::failure_of([&] {
                  parallelize(logits, world, {{"head", TensorCut::kVocabulary}});
                }),
                HasSubstr("ConfigError: the tensor-parallel plan cuts head by its vocabulary, but "
                          "it has a bias"));
  });
}

TEST(TensorParallel, RefusesRanksThatTheModelCannotFill) {
  run_threads(3, [&](Group& world) {
    nn::Transformer model(testing::mesh_config("llama"));
    EXPECT_EQ(testing::failure_of([&] { parallelize(*model, world); }),
              "ConfigError: blocks.0.attn.q has 2 kv heads and tp 3 ranks: the kv heads must be as "
              "many as the ranks at least, or divide them");
  });
  run_threads(5, [&](Group& world) {
    nn::Transformer model(testing::mesh_config("gpt2"));
    EXPECT_EQ(testing::failure_of([&] { parallelize(*model, world); }),
              "ConfigError: blocks.0.attn.q has 4 heads, which 5 ranks of tp cannot share: at most "
              "4 ranks");
  });
}

TEST(TensorParallel, ATokenOutsideTheVocabularyIsRefused) {
  run_threads(2, [&](Group& world) {
    nn::Transformer model(testing::mesh_config("gpt2"));
    const TensorParallel cut = parallelize(*model, world);
    nn::initialize(*model, 11);
    const at::Tensor tokens = torch::full({1, 3}, 37, at::kLong);
    EXPECT_THROW(model->loss(tokens, tokens), c10::IndexError);
  });
}

}  // namespace
}  // namespace trireme
