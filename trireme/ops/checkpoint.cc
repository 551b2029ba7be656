// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/engine.h>

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/ops/split_backward.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A state of LibTorch's random numbers: of the CPU and of the devices that inputs lie on.
class RandomState {
 public:
  // The present one.
  explicit RandomState(const variable_list& inputs) {
    add(at::detail::getDefaultCPUGenerator());
    for (const at::Tensor& input : inputs) {
      if (input.is_cuda()) add(at::globalContext().defaultGenerator(input.device()));
    }
  }
  RandomState present() const {
    RandomState state = *this;
    for (Entry& entry : state.entries_) {
      const std::lock_guard lock(entry.generator.mutex());
      entry.state = entry.generator.get_state();
    }
    return state;
  }
  void restore() const {
    for (Entry entry : entries_) {
      const std::lock_guard lock(entry.generator.mutex());
      entry.generator.set_state(entry.state);
    }
  }

 private:
  struct Entry {
    at::Generator generator;
    at::Tensor state;
  };
  void add(at::Generator generator) {
    for (const Entry& entry : entries_) {
      if (entry.generator == generator) return;
    }
    const std::lock_guard lock(generator.mutex());
    entries_.push_back({generator, generator.get_state()});
  }

  std::vector<Entry> entries_;
};

// Puts LibTorch's random numbers back to an earlier state while it lives.
class RandomStateGuard {
 public:
  explicit RandomStateGuard(const RandomState& state) : before_(state.present()) {
    state.restore();
  }
  RandomStateGuard(const RandomStateGuard&) = delete;
  RandomStateGuard& operator=(const RandomStateGuard&) = delete;
  ~RandomStateGuard() { before_.restore(); }

 private:
  RandomState before_;
};

// "f32 [2, 3], ...": what both runs must agree in.
std::string describe(const variable_list& tensors) {
  std::string text;
  for (const at::Tensor& tensor : tensors) {
    text += text.empty() ? "" : ", ";
    text += tensor.defined() ? fmt::format("{} [{}]", c10::toString(tensor.scalar_type()),
                                           fmt::join(tensor.sizes(), ", "))
                             : "undefined";
  }
  return text;
}

// What a node keeps beside its inputs, from its forward to its backward pass.
struct Recipe : torch::CustomClassHolder {
  explicit Recipe(const variable_list& inputs) : random_state(inputs) {}

  Segment segment;
  RandomState random_state;  // before the forward pass
  std::string outputs;
  bool used = false;
};

// The node's inputs once more, as the leaves of a graph of their own.
variable_list leaves_of(const variable_list& inputs) {
  variable_list leaves;
  for (const at::Tensor& input : inputs) {
    leaves.push_back(input.detach().set_requires_grad(input.requires_grad()));
  }
  return leaves;
}

// The segment's outputs with their graph.
variable_list run_again(const Recipe& recipe, const variable_list& leaves) {
  const RandomStateGuard random(recipe.random_state);
  const at::AutoGradMode with_graph(true);
  variable_list outputs = recipe.segment(leaves);
  if (const std::string again = describe(outputs); again != recipe.outputs) {
    throw_error<Error>(
        "a checkpointed segment gave {} in the forward pass and {} in the backward pass: it must "
        "give the same from the same inputs",
        recipe.outputs, again);
  }
  return outputs;
}

void check_backward(const Recipe& recipe) {
  if (recipe.used) {
    throw_error<Error>(
        "the backward pass goes through a checkpointed segment a second time, but what it needs "
        "was freed the first time: run the forward pass again");
  }
  if (at::GradMode::is_enabled()) {
    throw_error<Error>("a checkpointed segment has no second derivatives: leave create_graph out");
  }
  if (detail::split_under_way() == nullptr &&
      !torch::autograd::Engine::get_default_engine().is_checkpoint_valid()) {
    throw_error<Error>(
        "torch::autograd::grad(), and backward() for some inputs only, cannot go through a "
        "checkpointed segment, whose parameters' gradients would land in .grad: use backward() or "
        "SplitBackward");
  }
}

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  // anchor: an empty tensor that needs a gradient, so that there is a node even where only
  // parameters, which LibTorch does not see, need one.
  static variable_list forward(AutogradContext* context, Segment segment, at::TensorList list,
                               const at::Tensor& /*anchor*/) {
    const variable_list inputs = list.vec();
    auto recipe = c10::make_intrusive<Recipe>(inputs);
    variable_list outputs = segment(inputs);
    recipe->outputs = describe(outputs);
    recipe->segment = std::move(segment);
    context->saved_data["recipe"] = at::IValue::make_capsule(std::move(recipe));
    context->save_for_backward(inputs);
    context->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto capsule = context->saved_data["recipe"].toCapsule();
    auto& recipe = static_cast<Recipe&>(*capsule);
    check_backward(recipe);
    const variable_list leaves = leaves_of(context->get_saved_variables());
    recipe.used = true;
    variable_list roots, root_gradients;
    {
      const variable_list outputs = run_again(recipe, leaves);
      for (std::size_t i = 0; i < outputs.size(); ++i) {
        if (!gradients[i].defined() || !outputs[i].requires_grad()) continue;
        roots.push_back(outputs[i]);
        root_gradients.push_back(gradients[i]);
      }
    }
    variable_list result(1);  // of the segment
    for (at::Tensor& each : gradients_of(leaves, std::move(roots), std::move(root_gradients))) {
      result.push_back(std::move(each));
    }
    result.emplace_back();  // of the anchor
    return result;
  }

 private:
  // Of the segment's leaves. Those of its parameters land in .grad, now or in the second half of a
  // split pass.
  static variable_list gradients_of(const variable_list& leaves, variable_list roots,
                                    variable_list root_gradients) {
    if (SplitBackward* split = detail::split_under_way()) {
      SplitBackward::Edges edges;
      for (const at::Tensor& root : std::exchange(roots, {})) {
        edges.push_back(torch::autograd::impl::gradient_edge(root));
      }
      return split->backward_inputs_within(edges, std::move(root_gradients), leaves);
    }
    if (!roots.empty()) torch::autograd::backward(roots, root_gradients);
    variable_list result;
    for (const at::Tensor& leaf : leaves) result.push_back(leaf.grad());
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> checkpoint(Segment segment, const std::vector<at::Tensor>& inputs) {
  if (!at::GradMode::is_enabled()) return segment(inputs);
  for (const at::Tensor& input : inputs) {
    if (!input.defined())
      throw_error<ShapeError>("an input of a checkpointed segment is undefined");
  }
  const at::Tensor anchor = at::empty({0}, at::TensorOptions().dtype(at::kFloat));
  return Checkpoint::apply(std::move(segment), at::TensorList(inputs),
                           anchor.set_requires_grad(true));
}

}  // namespace trireme::ops
