// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A Model under ParameterServerStrategy, for tests/cli/served_model_test.cc:
//
//   served_model [workers N] [servers N] [consistency WORD] [kill RANK] [fail RANK]
//
// Each worker says what it got, with all digits, and whether it is far below the 0.25 of a guess.
// RANK is killed after the second epoch, or fails before its model is compiled.

#include <torch/nn.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/train/model.h"

namespace trireme {
namespace {

constexpr std::int64_t kSamples = 53;
constexpr std::int64_t kFeatures = 6;
constexpr std::int64_t kHidden = 1100;  // ranges of weights: three

at::Tensor formula(at::IntArrayRef sizes, double phase) {
  const at::Tensor count = torch::arange(c10::multiply_integers(sizes), torch::kDouble);
  return torch::sin(count * 0.71 + phase).reshape(sizes).to(torch::kFloat);
}

int run(const std::vector<std::string>& words) {
  ParameterServerOptions options{.range_bytes = 4 * kShardBlock};
  int killed = -1;
  int failing = -1;
  for (std::size_t i = 0; i + 1 < words.size(); i += 2) {
    if (words[i] == "workers") options.workers = std::stoi(words[i + 1]);
    if (words[i] == "servers") options.servers = std::stoi(words[i + 1]);
    if (words[i] == "consistency") options.consistency = words[i + 1];
    if (words[i] == "kill") killed = std::stoi(words[i + 1]);
    if (words[i] == "fail") failing = std::stoi(words[i + 1]);
  }
  ParameterServerStrategy strategy(options);
  if (strategy.rank() == failing) throw Error("this worker fails");
  const auto scope = strategy.scope();
  using namespace torch::nn;
  Model model(scope, Sequential(Linear(kFeatures, kHidden), Tanh(), Linear(kHidden, 1)));
  model.compile(Adam({.learning_rate = 0.0005}), MeanSquaredError());
  const at::Tensor x = formula({kSamples, kFeatures}, 1);
  const at::Tensor y = x.sum(1, true).gt(0).to(torch::kFloat);
  const auto kill = [&](Model&, const EpochEnd& end) {
    if (end.epoch == 2 && strategy.rank() == killed) raise(SIGKILL);
  };
  const History history = model.fit({x, y}, {.epochs = 6,
                                             .batch_size = 10,
                                             .validation = Dataset{x, y},
                                             .callbacks = {LambdaCallback(kill)},
                                             .progress = false});
  const at::Tensor predictions = model.predict(x, 7);
  const double loss = torch::mse_loss(predictions, y).item<double>();
  std::printf("rank %d of %d: loss %a, validation %a, predictions %a, which %s\n", strategy.rank(),
              strategy.size(), history.epochs.back().at("loss"),
              history.epochs.back().at("val_loss"), predictions.sum().item<double>(),
              loss < 0.15 ? "learned" : "did not learn");
  std::fflush(stdout);
  strategy.close();
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) try {
  return trireme::run({argv + 1, argv + argc});
} catch (const trireme::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
