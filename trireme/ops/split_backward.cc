// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/split_backward.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/ops/thread_marks.h"

namespace trireme::ops {
namespace {

using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;
using torch::autograd::Engine;
using torch::autograd::Node;
using NodePtr = decltype(Edge::function);
using Edges = SplitBackward::Edges;

struct Mark final : c10::DebugInfoBase {
  explicit Mark(SplitBackward* pass_in) : pass(pass_in) {}
  SplitBackward* const pass;
};

// The nodes that the edges lead to, each behind those that it leads to itself.
std::vector<NodePtr> nodes_of(const Edges& roots) {
  struct Visit {
    NodePtr node;
    std::size_t next = 0;  // edge
  };
  std::vector<NodePtr> order;
  std::unordered_set<const Node*> seen;
  std::vector<Visit> path;
  const auto enter = [&](const NodePtr& node) {
    if (node != nullptr && seen.insert(node.get()).second) path.push_back({node});
  };
  for (const Edge& root : roots) {
    enter(root.function);
    while (!path.empty()) {
      Visit& last = path.back();
      if (last.next < last.node->num_outputs()) {
        enter(last.node->next_edge(last.next++).function);
      } else {
        order.push_back(std::move(last.node));
        path.pop_back();
      }
    }
  }
  return order;
}

AccumulateGrad* as_accumulation(const NodePtr& node) {
  return dynamic_cast<AccumulateGrad*>(node.get());
}

Edge edge_of(const at::Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad() ? torch::autograd::impl::gradient_edge(tensor)
                                                    : Edge();
}

// What the first half runs of a graph, as the engine decides it: what leads to one of the ends,
// where it returns gradients instead of running on.
class FirstHalf {
 public:
  FirstHalf(const Edges& roots, const Edges& inputs) : nodes_(nodes_of(roots)) {
    for (const Edge& input : inputs) {
      if (input.is_valid()) inputs_.insert(input.function.get());
    }
    for (const NodePtr& node : nodes_) {
      if (inputs_.count(node.get()) != 0) ends_.insert(node.get());
    }
    if (ends_.empty()) {
      for (const NodePtr& node : nodes_) {
        if (as_accumulation(node) != nullptr) ends_.insert(node.get());
      }
    }
    while (grow()) {
    }
  }

  const std::vector<NodePtr>& nodes() const { return nodes_; }
  bool is_input(const NodePtr& node) const { return inputs_.count(node.get()) != 0; }
  bool runs(const NodePtr& node) const { return run_.count(node.get()) != 0; }
  // Whether gradients that come to the node are computed.
  bool reaches(const NodePtr& node) const { return runs(node) || ends_.count(node.get()) != 0; }
  // Run now, and for the rest of its edges later.
  bool runs_twice(const NodePtr& node) const {
    return runs(node) && may_run_twice(*node) && has_rest(*node);
  }
  // Gradients that come to the node are kept.
  bool keeps(const NodePtr& node) const {
    return runs_twice(node) || (!runs(node) && ends_.count(node.get()) != 0);
  }

 private:
  // LibTorch's own operations. Others may do in backward() what must be done once.
  static bool may_run_twice(Node& node) { return node.is_traceable(); }

  bool has_rest(const Node& node) const {
    const Edges& edges = node.next_edges();
    return std::any_of(edges.begin(), edges.end(), [&](const Edge& edge) {
      return edge.is_valid() && !reaches(edge.function);
    });
  }

  // Nodes that lead to ends, with those that become ends because a node is run once. False when
  // there were none that were not known.
  bool grow() {
    bool grown = false;
    for (const NodePtr& node : nodes_) {
      const Edges& edges = node->next_edges();
      const bool leads = std::any_of(edges.begin(), edges.end(), [&](const Edge& edge) {
        return edge.is_valid() && reaches(edge.function);
      });
      if (!leads) continue;
      grown |= run_.insert(node.get()).second;
      if (may_run_twice(*node)) continue;
      for (const Edge& edge : edges) {
        if (edge.is_valid() && !reaches(edge.function)) {
          grown |= ends_.insert(edge.function.get()).second;
        }
      }
    }
    return grown;
  }

  std::vector<NodePtr> nodes_;
  std::unordered_set<const Node*> inputs_, ends_, run_;
};

// The gradients that come to `ends` from roots; undefined where none does.
std::vector<at::Tensor> gradients_at(const Edges& ends, const Edges& roots,
                                     const std::vector<at::Tensor>& gradients) {
  if (roots.empty()) return std::vector<at::Tensor>(ends.size());
  return Engine::get_default_engine().execute(roots, gradients, /*keep_graph=*/true,
                                              /*create_graph=*/false, /*accumulate_grad=*/false,
                                              ends);
}

// Frees what a node saved as soon as it has run, in a pass that keeps the graph.
class Release final : public torch::autograd::FunctionPostHook {
 public:
  explicit Release(Node* node) : node_(node) {}
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& outputs,
                                     const std::vector<at::Tensor>& /*inputs*/) override {
    node_->release_variables();
    return outputs;
  }

 private:
  Node* const node_;  // whose hook this is
};

void free_what_runs_once(const FirstHalf& half) {
  for (const NodePtr& node : half.nodes()) {
    if (half.runs(node) && !half.runs_twice(node)) {
      node->add_post_hook(std::make_unique<Release>(node.get()));
    }
  }
}

// Cuts nodes that are to run again off what has been computed.
void leave_the_rest(const FirstHalf& half) {
  std::vector<Edge*> done;
  for (const NodePtr& node : half.nodes()) {
    if (!half.runs_twice(node)) continue;
    for (Edge& edge : node->next_edges()) {
      if (edge.is_valid() && half.reaches(edge.function)) done.push_back(&edge);
    }
  }
  for (Edge* edge : done) *edge = Edge();
}

at::Tensor sum_of(at::Tensor a, at::Tensor b) {
  if (!a.defined()) return b;
  return b.defined() ? a + b : a;
}

}  // namespace

std::vector<at::Tensor> SplitBackward::backward_inputs(const Edges& roots,
                                                       std::vector<at::Tensor> gradients,
                                                       const std::vector<at::Tensor>& inputs) {
  if (state_ != State::kNew) {
    throw_error<Error>("a SplitBackward goes through one graph once: make another one");
  }
  if (roots.size() != gradients.size()) {
    throw_error<Error>("a backward pass from {} outputs cannot take the gradients of {}",
                       roots.size(), gradients.size());
  }
  state_ = State::kDone;
  try {
    auto results = run_first_half(roots, gradients, inputs);
    state_ = State::kHalf;
    return results;
  } catch (...) {
    clear();
    throw;
  }
}

std::vector<at::Tensor> SplitBackward::run_first_half(const Edges& roots,
                                                      const std::vector<at::Tensor>& gradients,
                                                      const std::vector<at::Tensor>& inputs) {
  Edges input_edges, from;
  std::vector<at::Tensor> from_gradients;
  for (const at::Tensor& input : inputs) input_edges.push_back(edge_of(input));
  const FirstHalf half(roots, input_edges);
  for (std::size_t i = 0; i < roots.size(); ++i) {
    if (!roots[i].is_valid() || !gradients[i].defined()) continue;
    const bool now = half.reaches(roots[i].function);
    (now ? from : roots_).push_back(roots[i]);
    (now ? from_gradients : gradients_).push_back(gradients[i]);
  }
  // First what is returned, then what is kept.
  Edges ends;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!input_edges[i].is_valid() || !half.reaches(input_edges[i].function)) continue;
    ends.push_back(input_edges[i]);
    places.push_back(i);
  }
  const std::size_t returned = ends.size();
  for (const NodePtr& node : half.nodes()) {
    if (!half.keeps(node)) continue;
    if (half.is_input(node) && as_accumulation(node) != nullptr) continue;
    for (std::uint32_t i = 0; i < node->num_inputs(); ++i) ends.emplace_back(node, i);
  }
  free_what_runs_once(half);
  std::vector<at::Tensor> at_ends;
  {
    const DeferredGradients::Recording recording(recorded_);
    const c10::DebugInfoGuard split(detail::kSplitMark, std::make_shared<Mark>(this));
    at_ends = gradients_at(ends, from, from_gradients);
  }
  leave_the_rest(half);
  for (std::size_t i = returned; i < ends.size(); ++i) {
    if (const auto* accumulation = as_accumulation(ends[i].function)) {
      accumulations_.push_back({accumulation->variable, at_ends[i]});
    } else if (at_ends[i].defined()) {
      roots_.push_back(ends[i]);
      gradients_.push_back(at_ends[i]);
    }
  }
  std::vector<at::Tensor> results(inputs.size());
  for (std::size_t i = 0; i < returned; ++i) results[places[i]] = at_ends[i];
  return results;
}

void SplitBackward::backward_weights() {
  if (state_ != State::kHalf) {
    throw_error<Error>("backward_weights() comes once, after backward_inputs()");
  }
  state_ = State::kDone;
  try {
    run_second_half();
  } catch (...) {
    clear();
    throw;
  }
}

void SplitBackward::run_second_half() {
  const at::NoGradGuard no_grad;
  Edges roots = std::exchange(roots_, {});
  std::vector<at::Tensor> gradients = std::exchange(gradients_, {});
  std::vector<Accumulation> accumulations = std::exchange(accumulations_, {});
  for (auto& pass : std::exchange(within_, {})) pass->backward_weights();

  // None of these leaves is behind the roots: what leads to it has run in the first half.
  std::unordered_map<const c10::TensorImpl*, at::Tensor> beside_recorded;
  for (const at::Tensor& leaf : recorded_.parameters()) {
    beside_recorded[leaf.unsafeGetTensorImpl()];
  }
  for (Accumulation& each : accumulations) {
    const auto found = beside_recorded.find(each.leaf.unsafeGetTensorImpl());
    if (found != beside_recorded.end()) {
      found->second = std::move(each.gradient);
    } else {
      detail::accumulate(each.leaf, std::move(each.gradient));
    }
  }
  recorded_.run([&](const at::Tensor& leaf, at::Tensor gradient) {
    at::Tensor& other = beside_recorded[leaf.unsafeGetTensorImpl()];
    detail::accumulate(leaf, sum_of(std::move(other), std::move(gradient)));
  });
  if (roots.empty()) return;
  Engine::get_default_engine().execute(roots, gradients, /*keep_graph=*/false,
                                       /*create_graph=*/false, /*accumulate_grad=*/true);
}

std::int64_t SplitBackward::kept_bytes() const { return detail::distinct_bytes(kept()); }

std::vector<at::Tensor> SplitBackward::kept() const {
  std::vector<at::Tensor> all = recorded_.kept();
  all.insert(all.end(), gradients_.begin(), gradients_.end());
  for (const Accumulation& each : accumulations_) all.push_back(each.gradient);
  const std::lock_guard lock(mutex_);
  for (const auto& pass : within_) {
    const auto more = pass->kept();
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

void SplitBackward::clear() {
  recorded_.clear();
  roots_.clear();
  gradients_.clear();
  accumulations_.clear();
  within_.clear();
}

std::vector<at::Tensor> SplitBackward::backward_inputs_within(
    const Edges& roots, std::vector<at::Tensor> gradients, const std::vector<at::Tensor>& inputs) {
  auto pass = std::make_unique<SplitBackward>();
  auto results = pass->backward_inputs(roots, std::move(gradients), inputs);
  const std::lock_guard lock(mutex_);
  within_.push_back(std::move(pass));
  return results;
}

namespace detail {

SplitBackward* split_under_way() {
  const auto* mark = static_cast<const Mark*>(c10::ThreadLocalDebugInfo::get(detail::kSplitMark));
  return mark != nullptr ? mark->pass : nullptr;
}

}  // namespace detail
}  // namespace trireme::ops
