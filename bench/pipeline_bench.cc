// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Bubbles of pipelines: of stages whose passes take a known time and no processor, so that more
// ranks than cores tell the truth about schedules.
//
//   trireme launch --workers 4 -- pipeline_bench [ms of F] [ms of I] [ms of W] [micro-batches]
//   [KiB]
//
// F, I and W: of all that a rank has of the model, 12 each by default; of a stage, where a rank has
// several, the part. 8 micro-batches by default; KiB: what stages send one another, 64 by default.
// For each schedule the bubble that the verifier predicts and the one of the ranks' timelines, the
// medians of 7 steps; and each schedule's gain over 1f1b. --json: one object for each schedule.

#include <ATen/ops/zeros.h>
#include <fmt/core.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "trireme/launch/init.h"
#include "trireme/ops/deferred_gradients.h"
#include "trireme/parallel/pipeline/pipeline_executor.h"
#include "trireme/plan/generate_schedule.h"
#include "trireme/plan/verify_schedule.h"

namespace {

using namespace trireme;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int kRepetitions = 7;
constexpr double kMs = 1e3;  // us

struct Options {
  double forward_ms = 12, input_ms = 12, weight_ms = 12;
  int micro_batches = 8;
  std::int64_t kib = 64;
  bool json = false;
};

void rest(double us) {
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  const auto ns = until.tv_nsec + static_cast<long>(us * 1e3);
  until.tv_sec += ns / 1'000'000'000;
  until.tv_nsec = ns % 1'000'000'000;
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) != 0) {
  }
}

// A layer that takes its time.
struct Padded : torch::autograd::Function<Padded> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double forward_us, double input_us, double weight_us) {
    rest(forward_us);
    context->save_for_backward({weight});
    context->saved_data["input_us"] = input_us;
    context->saved_data["weight_us"] = weight_us;
    return x.clone();
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor weight = context->get_saved_variables()[0];
    const double weight_us = context->saved_data["weight_us"].toDouble();
    rest(context->saved_data["input_us"].toDouble());
    const at::Tensor of_weight =
        ops::detail::now_or_later(weight, {}, [weight, weight_us]() -> at::Tensor {
          rest(weight_us);
          return at::zeros_like(weight);
        });
    return {gradients[0], of_weight, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct Measured {
  double planned_us = 0, planned_bubble = 0;
  double step_us = 0, bubble = 0;  // medians
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::map<int, Stage> padded_stages(const plan::Schedule& schedule, const plan::StageCosts& costs,
                                   const Options& options, int rank) {
  std::map<int, Stage> stages;
  for (const int stage : plan::stages_of_rank(schedule.rank_of_stage, rank)) {
    const at::Tensor weight = at::zeros({1}).requires_grad_();
    const bool is_last = stage + 1 == schedule.stages();
    stages[stage].forward = [=, kib = options.kib](std::int64_t,
                                                   const std::vector<at::Tensor>& inputs) {
      const at::Tensor x = inputs.empty() ? at::zeros({kib * 256}) : inputs[0];
      const at::Tensor y = Padded::apply(x, weight, costs.forward_us, costs.backward_input_us,
                                         costs.backward_weight_us);
      return is_last ? StageOutput{.loss = y.sum()} : StageOutput{.activations = {y}};
    };
  }
  return stages;
}

Measured measure(const std::string& name, const Options& options, Group& world) {
  const plan::Schedule schedule =
      plan::with_communication(plan::generate_schedule({.name = name,
                                                        .ranks = world.size(),
                                                        .micro_batches = options.micro_batches,
                                                        .chunks = name == "interleaved" ? 2 : 1}),
                               {});
  const double share = static_cast<double>(world.size()) / schedule.stages();
  const plan::StageCosts costs{.forward_us = options.forward_ms * kMs * share,
                               .backward_input_us = options.input_ms * kMs * share,
                               .backward_weight_us = options.weight_ms * kMs * share};
  const plan::ScheduleReport report = plan::verify_schedule(
      schedule, std::vector(static_cast<std::size_t>(schedule.stages()), costs), {});
  Measured result{.planned_us = report.step_us};
  for (const plan::RankReport& rank : report.ranks) {
    result.planned_bubble += rank.bubble / world.size();
  }
  PipelineExecutor executor(world, padded_stages(schedule, costs, options, world.rank()));
  std::vector<double> steps, bubbles;
  for (int i = 0; i <= kRepetitions; ++i) {
    world.barrier();
    const PipelineRun run = executor.run(schedule);
    double busy = run.busy_us(), longest = 0;
    for (const InstructionSpan& span : run.spans) {
      if (plan::is_compute(span.instruction.action)) longest = std::max(longest, span.end_us);
    }
    world.all_reduce(buffer_of(std::span(&busy, 1)));
    world.all_reduce(buffer_of(std::span(&longest, 1)), ReduceOp::kMax);
    if (i == 0) continue;  // warms up
    steps.push_back(longest);
    bubbles.push_back(1 - busy / (longest * world.size()));
  }
  result.step_us = median(steps);
  result.bubble = median(bubbles);
  return result;
}

Options options_of(int argc, char** argv) {
  Options options;
  std::vector<double> numbers;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--json") {
      options.json = true;
    } else {
      numbers.push_back(std::atof(argv[i]));
    }
  }
  const auto number = [&](std::size_t i, double usual) {
    return numbers.size() > i ? numbers[i] : usual;
  };
  options.forward_ms = number(0, options.forward_ms);
  options.input_ms = number(1, options.input_ms);
  options.weight_ms = number(2, options.weight_ms);
  options.micro_batches = static_cast<int>(number(3, options.micro_batches));
  options.kib = static_cast<std::int64_t>(number(4, static_cast<double>(options.kib)));
  return options;
}

void print(const std::string& name, const Measured& one, const Measured& base,
           const Options& options) {
  const double planned_gain = base.planned_us / one.planned_us;
  const double gain = base.step_us / one.step_us;
  fmt::print(fmt::runtime(
                 options.json
                     ? "{{\"schedule\": \"{}\", \"planned_ms\": {:.3f}, \"ms\": {:.3f}, "
                       "\"planned_bubble\": {:.5f}, \"bubble\": {:.5f}, \"bubble_ratio\": {:.4f}, "
                       "\"planned_gain\": {:.4f}, \"gain\": {:.4f}}}\n"
                     : "{:<12}{:>12.2f}{:>10.2f}{:>12.4f}{:>10.4f}{:>8.3f}{:>10.3f}{:>8.3f}\n"),
             name, one.planned_us / kMs, one.step_us / kMs, one.planned_bubble, one.bubble,
             one.bubble / one.planned_bubble, planned_gain, gain);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = options_of(argc, argv);
  const auto world = init();
  const bool prints = world->rank() == 0;
  if (prints && !options.json) {
    fmt::print("{} ranks, {} micro-batches, F {} ms, I {} ms, W {} ms, {} KiB\n", world->size(),
               options.micro_batches, options.forward_ms, options.input_ms, options.weight_ms,
               options.kib);
    fmt::print("{:<12}{:>12}{:>10}{:>12}{:>10}{:>8}{:>10}{:>8}\n", "schedule", "planned ms", "ms",
               "planned", "bubble", "ratio", "gain", "gain");
  }
  const Measured base = measure("1f1b", options, *world);
  for (const char* name : {"1f1b", "gpipe", "interleaved", "zb-h1", "zbv", "dualpipev"}) {
    const Measured one = measure(name, options, *world);
    if (prints) print(name, one, base, options);
  }
  world->close();
  return 0;
}
