// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/pipeline/pipeline_executor.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full_like.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <chrono>
#include <deque>
#include <exception>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/split_backward.h"
#include "trireme/parallel/pipeline/pipeline_failure.h"
#include "trireme/parallel/pipeline/stage_messages.h"

namespace trireme {
namespace {

using plan::Action;
using plan::Instruction;
using Clock = std::chrono::steady_clock;

double us_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

// A stage and a micro-batch.
using Pass = std::pair<int, int>;

// What is kept of a forward pass.
struct PassState {
  std::vector<at::Tensor> inputs;  // leaves
  torch::autograd::edge_list roots;
  // By root: of a loss, its gradient; undefined: comes from the next stage.
  std::vector<at::Tensor> seeds;
  std::vector<bool> is_activation;
  std::vector<at::Tensor> outputs;            // until they are sent
  std::unique_ptr<ops::SplitBackward> split;  // between the two parts of a backward pass
};

// What ended the world ends later runs, too.
[[noreturn]] void throw_again(const std::exception_ptr& failure) {
  std::string reason = "an exception of an unknown kind";
  try {
    std::rethrow_exception(failure);
  } catch (const CommError&) {
    throw;
  } catch (const std::exception& error) {
    reason = error.what();
    reason = reason.substr(0, reason.find('\n'));
  } catch (...) {
  }
  throw_error<Error>(
      "a step of this pipeline ended with \"{}\", half way: there is no going on from its "
      "gradients",
      reason);
}

}  // namespace

struct PipelineExecutor::Impl {
  Impl(Group& pp, std::map<int, Stage> stages_in)
      : stages(std::move(stages_in)), messages(pp.duplicate("pipeline")) {}

  void begin(const plan::Schedule& schedule_in);
  void check_tied(const plan::Schedule& schedule_in) const;
  void run();
  void execute(const Instruction& instruction, Clock::time_point begin, double& ready_us);
  void forward(int stage, int micro_batch, Clock::time_point begin, double& ready_us);
  void backward(int stage, int micro_batch, StagePass pass, Clock::time_point begin,
                double& ready_us);
  void backward_weights(int stage, int micro_batch);
  void send_activation(const Instruction& instruction);
  void receive_tied(const Instruction& i, Clock::time_point begin, double& ready_us);
  void hand_over_tied(int micro_batch);

  int rank() const { return messages.group().rank(); }
  int rank_of(int stage) const {
    return schedule->rank_of_stage.at(static_cast<std::size_t>(stage));
  }
  bool is_here(int stage) const { return rank_of(stage) == rank(); }
  bool is_last(int stage) const { return stage + 1 == schedule->stages(); }
  // Between the first and the last stage of this rank there are no messages.
  bool keeps_tied() const { return is_here(0) && is_here(schedule->stages() - 1); }

  const std::map<int, Stage> stages;
  StageMessages messages;
  std::exception_ptr failure;  // of an earlier run
  // Of the run under way.
  const plan::Schedule* schedule = nullptr;
  bool trains = false;
  std::map<Pass, PassState> passes;
  // Gradients of inputs until they are sent, by what computed them.
  std::map<Pass, std::vector<at::Tensor>> input_gradients;
  PipelineRun result;
};

void PipelineExecutor::Impl::begin(const plan::Schedule& schedule_in) {
  if (schedule_in.ranks != messages.group().size()) {
    throw_error<ConfigError>("schedule {} is for {} ranks, and the pipeline has {}",
                             schedule_in.name, schedule_in.ranks, messages.group().size());
  }
  for (int stage = 0; stage < schedule_in.stages(); ++stage) {
    const bool here = schedule_in.rank_of_stage[static_cast<std::size_t>(stage)] == rank();
    if (here == stages.contains(stage)) continue;
    throw_error<ConfigError>("schedule {} has stage {} on rank {}, but rank {} has {}",
                             schedule_in.name, stage,
                             schedule_in.rank_of_stage[static_cast<std::size_t>(stage)], rank(),
                             here ? "no such stage" : "it, too");
  }
  check_tied(schedule_in);
  schedule = &schedule_in;
  trains = plan::has_backward(schedule_in);
  passes.clear();
  input_gradients.clear();
  result = {};
  result.losses.assign(static_cast<std::size_t>(schedule_in.micro_batches), 0.0);
  messages.begin(schedule_in.stages(), schedule_in.micro_batches);
}

void PipelineExecutor::Impl::check_tied(const plan::Schedule& schedule_in) const {
  for (const Instruction& i : schedule_in.of_rank[static_cast<std::size_t>(rank())]) {
    const bool sends = i.action == Action::kSendTied, receives = i.action == Action::kReceiveTied;
    if ((sends && !stages.at(i.stage).take_tied) || (receives && !stages.at(i.stage).add_tied)) {
      throw_error<ConfigError>(
          "schedule {} has {}, but no matrix is shared by the first and the last stage: leave "
          "SEND_T and RECV_T out",
          schedule_in.name, to_string(i));
    }
  }
}

void PipelineExecutor::Impl::execute(const Instruction& i, Clock::time_point begin,
                                     double& ready_us) {
  switch (i.action) {
    case Action::kForward:
      return forward(i.stage, i.micro_batch, begin, ready_us);
    case Action::kBackward:
      return backward(i.stage, i.micro_batch, StagePass::kWhole, begin, ready_us);
    case Action::kBackwardInput:
      return backward(i.stage, i.micro_batch, StagePass::kInputs, begin, ready_us);
    case Action::kBackwardWeight:
      return backward_weights(i.stage, i.micro_batch);
    case Action::kSendActivation:
      return send_activation(i);
    case Action::kReceiveActivation:
      return messages.start_receive({MessageKind::kActivation, i.stage - 1, i.micro_batch},
                                    rank_of(i.stage - 1));
    case Action::kSendGradient: {
      const auto gradients = input_gradients.extract({i.stage, i.micro_batch});
      return messages.start_send({MessageKind::kGradient, i.stage, i.micro_batch},
                                 gradients.mapped(), rank_of(i.stage - 1));
    }
    case Action::kReceiveGradient:
      return messages.start_receive({MessageKind::kGradient, i.stage + 1, i.micro_batch},
                                    rank_of(i.stage + 1));
    case Action::kSendTied:
      return messages.start_send({MessageKind::kTied, 0, i.micro_batch},
                                 stages.at(0).take_tied(i.micro_batch),
                                 rank_of(schedule->stages() - 1));
    case Action::kReceiveTied:
      return receive_tied(i, begin, ready_us);
    case Action::kGather:
    case Action::kRelease:
      if (stages.at(i.stage).hold_weights) {
        stages.at(i.stage).hold_weights(i.action == Action::kGather);
      }
      return;
    case Action::kReduce:  // the gradients are on their way with their last addition
    case Action::kStep:
      return;
  }
}

void PipelineExecutor::Impl::forward(int stage, int micro_batch, Clock::time_point begin,
                                     double& ready_us) {
  PassState state;
  if (stage > 0) {
    for (const at::Tensor& tensor :
         messages.receive({MessageKind::kActivation, stage - 1, micro_batch})) {
      at::Tensor leaf = tensor;
      if (trains && leaf.defined() && leaf.is_floating_point()) leaf.requires_grad_();
      state.inputs.push_back(leaf);
    }
  }
  ready_us = us_since(begin);
  StageOutput output;
  {
    const at::AutoGradMode mode(trains);
    output = stages.at(stage).forward(micro_batch, state.inputs);
  }
  for (const at::Tensor& activation : output.activations) {
    if (trains && activation.defined() && activation.requires_grad()) {
      state.roots.push_back(torch::autograd::impl::gradient_edge(activation));
      state.seeds.emplace_back();
      state.is_activation.push_back(true);
    } else {
      state.is_activation.push_back(false);
    }
    state.outputs.push_back(activation.defined() ? activation.detach() : activation);
  }
  if (output.loss.defined()) {
    result.losses.at(static_cast<std::size_t>(micro_batch)) += output.loss.item<double>();
    if (trains && output.loss.requires_grad()) {
      state.roots.push_back(torch::autograd::impl::gradient_edge(output.loss));
      state.seeds.push_back(at::full_like(output.loss.detach(), output.weight));
    }
  }
  if (!is_last(stage) && is_here(stage + 1)) {
    messages.hand_over({MessageKind::kActivation, stage, micro_batch}, std::move(state.outputs));
  }
  // What has no backward pass keeps what is to be sent.
  if (!trains && (is_last(stage) || is_here(stage + 1))) return;
  passes[{stage, micro_batch}] = std::move(state);
}

void PipelineExecutor::Impl::send_activation(const Instruction& i) {
  PassState& state = passes.at({i.stage, i.micro_batch});
  messages.start_send({MessageKind::kActivation, i.stage, i.micro_batch},
                      std::exchange(state.outputs, {}), rank_of(i.stage + 1));
  if (!trains) passes.erase({i.stage, i.micro_batch});
}

void PipelineExecutor::Impl::backward(int stage, int micro_batch, StagePass pass,
                                      Clock::time_point begin, double& ready_us) {
  PassState& state = passes.at({stage, micro_batch});
  std::vector<at::Tensor> seeds = state.seeds;
  if (!is_last(stage)) {
    const std::vector<at::Tensor> received =
        messages.receive({MessageKind::kGradient, stage + 1, micro_batch});
    TRIREME_CHECK_EQ(received.size(), state.is_activation.size(),
                     "gradients of a stage's activations");
    std::size_t root = 0;
    for (std::size_t i = 0; i < received.size(); ++i) {
      if (!state.is_activation[i]) continue;
      seeds[root] = received[i];
      ++root;
    }
  }
  ready_us = us_since(begin);
  // Activations that the next stage does not use have no gradient.
  torch::autograd::edge_list roots;
  std::vector<at::Tensor> gradients;
  for (std::size_t i = 0; i < seeds.size(); ++i) {
    if (!seeds[i].defined()) continue;
    roots.push_back(std::move(state.roots[i]));
    gradients.push_back(std::move(seeds[i]));
  }
  state.roots.clear();
  std::vector<at::Tensor> of_inputs;
  const auto compute = [&] {
    if (pass == StagePass::kInputs) {
      state.split = std::make_unique<ops::SplitBackward>();
      of_inputs = state.split->backward_inputs(roots, std::move(gradients), state.inputs);
      return;
    }
    if (!roots.empty()) {
      torch::autograd::Engine::get_default_engine().execute(roots, gradients, /*keep_graph=*/false,
                                                            /*create_graph=*/false,
                                                            /*accumulate_grad=*/true);
    }
    for (const at::Tensor& input : state.inputs) {
      of_inputs.push_back(input.defined() ? input.grad() : at::Tensor());
    }
  };
  const Stage& computes = stages.at(stage);
  computes.run_pass ? computes.run_pass(micro_batch, pass, compute) : compute();
  state.inputs.clear();
  if (pass == StagePass::kWhole) passes.erase({stage, micro_batch});
  if (stage == 0) {
    if (keeps_tied() && computes.take_tied) hand_over_tied(micro_batch);
    return;
  }
  if (is_here(stage - 1)) {
    messages.hand_over({MessageKind::kGradient, stage, micro_batch}, std::move(of_inputs));
  } else {
    input_gradients[{stage, micro_batch}] = std::move(of_inputs);
  }
}

void PipelineExecutor::Impl::backward_weights(int stage, int micro_batch) {
  const auto state = passes.extract({stage, micro_batch});
  const auto compute = [&] { state.mapped().split->backward_weights(); };
  const Stage& computes = stages.at(stage);
  computes.run_pass ? computes.run_pass(micro_batch, StagePass::kWeights, compute) : compute();
}

// Here and nowhere else: replicas add, and with ZeRO exchange, gradients in one order.
void PipelineExecutor::Impl::receive_tied(const Instruction& i, Clock::time_point begin,
                                          double& ready_us) {
  const MessageKey key{MessageKind::kTied, 0, i.micro_batch};
  messages.start_receive(key, rank_of(0));
  const std::vector<at::Tensor> gradients = messages.receive(key);
  ready_us = us_since(begin);
  stages.at(i.stage).add_tied(i.micro_batch, gradients);
}

void PipelineExecutor::Impl::hand_over_tied(int micro_batch) {
  const Stage& last = stages.at(schedule->stages() - 1);
  last.add_tied(micro_batch, stages.at(0).take_tied(micro_batch));
}

double PipelineRun::busy_us() const {
  double sum = 0;
  for (const InstructionSpan& span : spans) {
    if (plan::is_compute(span.instruction.action)) sum += span.end_us - span.ready_us;
  }
  return sum;
}

PipelineExecutor::PipelineExecutor(Group& pp, std::map<int, Stage> stages)
    : impl_(std::make_unique<Impl>(pp, std::move(stages))) {}
PipelineExecutor::~PipelineExecutor() {
  if (impl_ && impl_->schedule != nullptr) {
    impl_->messages.group().abandon("it ended in the middle of a step");
  }
}
PipelineExecutor::PipelineExecutor(PipelineExecutor&&) noexcept = default;

PipelineRun PipelineExecutor::run(const plan::Schedule& schedule) {
  if (impl_->failure) throw_again(impl_->failure);
  impl_->begin(schedule);
  try {
    impl_->run();
  } catch (...) {
    impl_->failure = std::current_exception();
    throw;
  }
  impl_->schedule = nullptr;
  return std::move(impl_->result);
}

void PipelineExecutor::Impl::run() {
  const auto& instructions = schedule->of_rank.at(static_cast<std::size_t>(rank()));
  PipelineProgress progress(*schedule, messages.group());
  const auto started = Clock::now();
  for (const Instruction& instruction : instructions) {
    InstructionSpan span{.instruction = instruction, .start_us = us_since(started)};
    span.ready_us = span.start_us;
    progress.guard([&] {
      messages.settle();
      execute(instruction, started, span.ready_us);
    });
    span.end_us = us_since(started);
    progress.has_done(span.instruction);
    result.spans.push_back(span);
  }
  progress.guard([&] { messages.finish(); });
  passes.clear();
}

std::int64_t PipelineExecutor::bytes_sent() const { return impl_->messages.bytes_sent(); }

}  // namespace trireme
