// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/pipeline/pipeline.h"

#include <ATen/Context.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/pipeline_nets.h"
#include "tests/support/ranks.h"
#include "trireme/plan/generate_schedule.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::JoinedStep;
using testing::make_net;
using testing::net_inputs;
using testing::net_loss;
using testing::one_rank_step;
using testing::run_step;
using testing::run_threads;
using ::testing::StartsWith;

constexpr int kMicroBatches = 7;

std::vector<std::string> training_schedules() {
  std::vector<std::string> names = plan::schedule_names();
  std::erase(names, "streaming");
  return names;
}

TEST(Pipeline, GradientsAndBuffersAreThoseOfOneRankBitForBit) {
  for (const std::string kind : {"plain", "tokens", "several", "images"}) {
    const testing::NetStep expected = one_rank_step(kind, kMicroBatches);
    for (const std::string& name : training_schedules()) {
      for (const int ranks : {1, 2, 3, 4}) {
        JoinedStep joined;
        run_threads(ranks, [&](Group& world) {
          Pipeline pipeline(make_net(kind), world,
                            {.schedule = name,
                             .micro_batches = kMicroBatches,
                             .chunks = name == "interleaved" ? 2 : 1});
          joined.add(pipeline, run_step(pipeline, kind));
        });
        EXPECT_EQ(difference(joined.step(), expected), "") << kind << ", " << name << ", " << ranks;
      }
    }
  }
}

// Whatever two layers hand to one another: several tensors, some of integers or truth values, their
// own input, what is changed in place.
TEST(Pipeline, MayBeCutBetweenAnyTwoLayers) {
  for (const std::string kind : {"plain", "tokens", "several", "images"}) {
    const testing::NetStep expected = one_rank_step(kind, 3);
    for (const std::string schedule : {"1f1b", "zb-h1"}) {
      for (int cut = 1; cut < 10; ++cut) {
        JoinedStep joined;
        run_threads(2, [&](Group& world) {
          Pipeline pipeline(make_net(kind), world,
                            {.schedule = schedule, .micro_batches = 3, .layers = {cut, 10 - cut}});
          joined.add(pipeline, run_step(pipeline, kind));
        });
        EXPECT_EQ(difference(joined.step(), expected), "")
            << kind << ", " << schedule << ", " << cut;
      }
    }
  }
}

TEST(Pipeline, StepsGoOnFromTheirGradients) {
  torch::nn::Sequential net = make_net("plain");
  torch::optim::SGD reference(net->parameters(), 0.1);
  for (int step = 0; step < 3; ++step) {
    reference.zero_grad();
    for (std::int64_t m = 0; m < 4; ++m) {
      net_loss(testing::net_output(net, "plain", m), m).backward(at::full({}, 0.25));
    }
    reference.step();
  }
  run_threads(3, [&](Group& world) {
    Pipeline pipeline(make_net("plain"), world, {.schedule = "zb-h1", .micro_batches = 4});
    torch::optim::SGD optimizer(pipeline.parameters(), 0.1);
    for (int step = 0; step < 3; ++step) {
      optimizer.zero_grad();
      run_step(pipeline, "plain");
      optimizer.step();
    }
    const auto expected = net->named_parameters();
    for (const auto& [name, parameter] : pipeline.named_parameters()) {
      EXPECT_TRUE(parameter.equal(expected[name])) << name;
    }
  });
}

TEST(Pipeline, KeepsItsLayersByTheirNamesAndFreesTheOthers) {
  run_threads(3, [](Group& world) {
    torch::nn::Sequential net = make_net("plain");
    const Pipeline pipeline(net, world, {.micro_batches = 3, .layers = {5, 1, 4}});
    ASSERT_THAT(pipeline.stages(), ElementsAre(world.rank()));
    EXPECT_THAT(pipeline.layers(), ElementsAre(5, 1, 4));
    std::vector<std::string> names;
    for (const auto& [name, parameter] : pipeline.named_parameters()) names.push_back(name);
    if (world.rank() == 0) {
      EXPECT_THAT(names,
                  ElementsAre("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"));
    } else if (world.rank() == 1) {
      EXPECT_THAT(names, ElementsAre());
    } else {
      EXPECT_THAT(names,
                  ElementsAre("6.weight", "6.bias", "7.weight", "7.bias", "9.weight", "9.bias"));
    }
    for (const auto& item : net->named_parameters()) {
      const bool own = std::ranges::find(names, item.key()) != names.end();
      EXPECT_EQ(item.value().storage().nbytes() > 0, own) << item.key();
    }
    EXPECT_THAT(failure_of([&] { pipeline.module(world.rank() == 0 ? 1 : 0); }),
                HasSubstr(fmt::format("rank {} of the pipeline has stages [{}]", world.rank(),
                                      world.rank())));
  });
}

TEST(Pipeline, StartsFromTheFirstRanksParameters) {
  const testing::NetStep expected = one_rank_step("images", 2);
  JoinedStep joined;
  run_threads(2, [&](Group& world) {
    torch::nn::Sequential net = make_net("images");
    const at::NoGradGuard no_grad;
    if (world.rank() != 0) {
      for (at::Tensor& parameter : net->parameters()) parameter.zero_();
      for (at::Tensor& buffer : net->buffers()) buffer.add_(3);
    }
    Pipeline pipeline(net, world, {.micro_batches = 2});
    joined.add(pipeline, run_step(pipeline, "images"));
  });
  EXPECT_EQ(difference(joined.step(), expected), "");
}

TEST(Pipeline, GivesOutputsAndLossesWithoutGradients) {
  for (const std::string name : {"1f1b", "interleaved", "zbv"}) {
    for (const int ranks : {1, 2, 3}) {
      run_threads(ranks, [&](Group& world) {
        torch::nn::Sequential net = make_net("images");
        net->eval();
        Pipeline pipeline(
            make_net("images"), world,
            {.schedule = name, .micro_batches = 3, .chunks = name == "interleaved" ? 3 : 1});
        pipeline.train(false);
        const at::NoGradGuard no_grad;
        const Pipeline::Inputs inputs = [](std::int64_t m) { return net_inputs("images", m); };
        for (const int micro_batches : {1, 8, 5}) {
          std::int64_t next = 0;
          pipeline.forward(micro_batches, inputs, [&](const at::Tensor& y, std::int64_t m) {
            EXPECT_EQ(m, next++);
            EXPECT_FALSE(y.requires_grad());
            EXPECT_TRUE(y.equal(testing::net_output(net, "images", m))) << m;
          });
          const bool last = pipeline.stages().back() + 1 == pipeline.schedule().stages();
          EXPECT_EQ(next, last ? micro_batches : 0);
          const PipelineLosses losses = pipeline.evaluate(micro_batches, inputs, net_loss);
          ASSERT_EQ(losses.values.size(), static_cast<std::size_t>(micro_batches));
          double sum = 0;
          for (std::int64_t m = 0; m < micro_batches; ++m) {
            const double loss = net_loss(testing::net_output(net, "images", m), m).item<double>();
            EXPECT_EQ(losses.values[static_cast<std::size_t>(m)], loss);
            sum += loss;
          }
          EXPECT_EQ(losses.mean(), sum / micro_batches);
        }
        for (const auto& [parameter, tensor] : pipeline.named_parameters()) {
          EXPECT_FALSE(tensor.grad().defined()) << parameter;
        }
      });
    }
  }
}

// A slow layer between fast ones, which have the parameters.
struct SlowImpl : torch::nn::Module {
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = x;
    for (int i = 0; i < 3000; ++i) y = y * 1.0001;
    return y;
  }
};
TORCH_MODULE(Slow);

TEST(Pipeline, IsCutByTheTimeThatLayersTakeOrByParameters) {
  run_threads(2, [](Group& world) {
    using namespace torch::nn;  // NOLINT
    const auto make = [] {
      return Sequential(Linear(3, 30), BatchNorm1d(30), Dropout(), Linear(30, 30), Linear(30, 3),
                        Slow());
    };
    const auto generator = at::globalContext().defaultGenerator(at::kCPU);
    Sequential net = make();
    world.barrier();
    const at::Tensor before = generator.get_state();
    const at::Tensor x = at::ones({2, 3});
    Pipeline timed(net, world, {.micro_batches = 2, .example = {x}});
    EXPECT_TRUE(generator.get_state().equal(before));
    world.barrier();
    EXPECT_THAT(timed.layers(), ElementsAre(5, 1));
    if (world.rank() == 0) {
      EXPECT_EQ(timed.module(0).named_buffers()["1.num_batches_tracked"].item<int>(), 0);
      for (const at::Tensor& parameter : timed.parameters()) {
        EXPECT_FALSE(parameter.grad().defined());
      }
    }
    const Pipeline counted(make(), world, {.micro_batches = 2});
    EXPECT_THAT(counted.layers(), ElementsAre(3, 3));
  });
}

TEST(Pipeline, TakesScheduleAndWeightThatAreGiven) {
  const testing::NetStep expected = one_rank_step("tokens", 6, 3);
  plan::Schedule schedule =
      plan::generate_schedule({.name = "zbv", .ranks = 2, .micro_batches = 6});
  schedule.name = "mine";
  JoinedStep joined;
  run_threads(2, [&](Group& world) {
    Pipeline pipeline(make_net("tokens"), world,
                      {.schedule = schedule, .micro_batches = 6, .loss_weight = 3});
    EXPECT_EQ(pipeline.schedule().name, "mine");
    joined.add(pipeline, run_step(pipeline, "tokens"));
  });
  EXPECT_EQ(difference(joined.step(), expected), "");
}

struct OnDeviceImpl : torch::nn::Module {
  explicit OnDeviceImpl(at::Device device) {
    register_parameter("weight", at::empty({3}, at::TensorOptions().device(device)));
  }
  at::Tensor forward(const at::Tensor& x) { return x; }
};
TORCH_MODULE(OnDevice);

std::string refusal(Group& world, const torch::nn::Sequential& net,
                    const PipelineOptions& options) {
  return failure_of([&] { Pipeline(net, world, options); });
}

TEST(Pipeline, RefusesWhatCannotBe) {
  run_threads(2, [](Group& world) {
    const auto net = make_net("plain");
    EXPECT_THAT(refusal(world, net, {.micro_batches = 2, .layers = {5, 4}}),
                AllOf(StartsWith("ConfigError"), HasSubstr("[5, 4]"), HasSubstr("10 layers")));
    EXPECT_THAT(refusal(world, net, {.micro_batches = 2, .layers = {10, 0}}),
                HasSubstr("at least one layer"));
    EXPECT_THAT(refusal(world, net, {.schedule = "interleaved", .micro_batches = 2, .chunks = 6}),
                HasSubstr("12 stages, and the net 10 layers"));
    EXPECT_THAT(refusal(world, net, {.schedule = "streaming"}), HasSubstr("no backward passes"));
    EXPECT_THAT(refusal(world, net, {.schedule = "nonsense"}), HasSubstr("nonsense"));
    EXPECT_THAT(
        refusal(world, net,
                {.schedule = plan::generate_schedule({.ranks = 3, .micro_batches = 4}),
                 .micro_batches = 4}),
        HasSubstr("schedule 1f1b is for 3 ranks and 4 micro-batches, and the pipeline has 2"));
    EXPECT_THAT(refusal(world, net, {.micro_batches = 2 + world.rank()}),
                HasSubstr("rank 1 has micro_batches 3, rank 0 has micro_batches 2"));
    EXPECT_THAT(refusal(world, make_net(world.rank() == 0 ? "plain" : "tokens"), {}),
                HasSubstr("the ranks' models differ"));
    torch::nn::Sequential tied = make_net("plain");
    tied->push_back(torch::nn::Linear(kMicroBatches, kMicroBatches));
    tied[10]->parameters()[1].set_data(tied[7]->parameters()[1].detach());
    EXPECT_THAT(refusal(world, tied, {.micro_batches = 2, .layers = {9, 2}}),
                AllOf(HasSubstr("7.bias of stage 0 and 10.bias of stage 1 are the same memory")));
    torch::nn::Sequential elsewhere = make_net("plain");
    elsewhere->push_back("far", OnDevice(at::kMeta));
    EXPECT_THAT(refusal(world, elsewhere, {}), HasSubstr("far.weight lies on meta"));
  });
}

TEST(Pipeline, AnExampleThatDoesNotFitIsToldToAllRanks) {
  run_threads(2, [](Group& world) {
    const std::string error =
        refusal(world, make_net("plain"),
                {.micro_batches = 2, .example = {at::ones({2, testing::kNetWidth + 1})}});
    EXPECT_THAT(error, HasSubstr("mat1 and mat2"));
    if (world.rank() == 1) {
      EXPECT_THAT(error, AllOf(StartsWith("CommError"), HasSubstr("rank 0 left"),
                               HasSubstr("with the example")));
    }
  });
}

// A last layer of another kind.
template <typename Result>
struct EndImpl : torch::nn::Module {
  Result forward(const at::Tensor& x) {
    if constexpr (std::is_same_v<Result, std::vector<at::Tensor>>) return {x, x, x, x};
    if constexpr (std::is_same_v<Result, std::string>) return "text";
  }
};

template <typename Layer>
torch::nn::Sequential three_layers(std::shared_ptr<Layer> middle) {
  return torch::nn::Sequential(torch::nn::Linear(kMicroBatches, 3), std::move(middle),
                               testing::Beside());
}

template <typename Layer>
std::string step_failure(Group& world, std::shared_ptr<Layer> middle,
                         const std::vector<int>& layers) {
  return failure_of([&] {
    Pipeline pipeline(three_layers(middle), world, {.micro_batches = 2, .layers = layers});
    pipeline.step(
        [](std::int64_t) {
          return at::ones({2, kMicroBatches});
        },
        [](const at::Tensor& y, std::int64_t) { return y.sum(); });
  });
}

TEST(Pipeline, RefusesWhatCannotTravelAndTellsTheOthers) {
  for (const bool text : {false, true}) {
    run_threads(2, [&](Group& world) {
      const std::string error =
          text ? step_failure(world, std::make_shared<EndImpl<std::string>>(), {2, 1})
               : step_failure(world, std::make_shared<EndImpl<std::vector<at::Tensor>>>(), {2, 1});
      EXPECT_THAT(error, HasSubstr(text ? "layer 1 gives a std::" : "layer 1 gives a vector of 4"));
      if (world.rank() == 1) {
        EXPECT_THAT(error, HasSubstr("rank 0 (stage 0) was at 0"));
      }
    });
  }
}

TEST(Pipeline, RefusesShapesThatChangeAndLossesThatAreNone) {
  run_threads(2, [](Group& world) {
    Pipeline pipeline(make_net("plain"), world, {.micro_batches = 3});
    const std::string error = failure_of([&] {
      pipeline.step(
          [](std::int64_t m) {
            return at::ones({2 + m / 2, testing::kNetWidth});
          },
          [](const at::Tensor& y, std::int64_t) { return y.sum(); });
    });
    EXPECT_THAT(error, AllOf(HasSubstr("for micro-batch 2"), HasSubstr("Float [2, "),
                             HasSubstr("Float [3, ")));
    EXPECT_THAT(failure_of([&] { run_step(pipeline, "plain"); }), HasSubstr("for micro-batch 2"));
  });
  run_threads(2, [](Group& world) {
    Pipeline pipeline(make_net("plain"), world, {.micro_batches = 3});
    EXPECT_THAT(failure_of([&] {
                  pipeline.step([](std::int64_t m) { return net_inputs("plain", m); },
                                [](const at::Tensor& y, std::int64_t) { return y; });
                }),
                HasSubstr("the loss of micro-batch 0 is [3, 5]: give a scalar"));
  });
}

}  // namespace
}  // namespace trireme
