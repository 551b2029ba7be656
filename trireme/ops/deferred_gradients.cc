// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/deferred_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "trireme/ops/thread_marks.h"

namespace trireme::ops {
namespace {

struct Mark final : c10::DebugInfoBase {
  explicit Mark(DeferredGradients* to_in) : to(to_in) {}
  DeferredGradients* const to;  // null: nothing is recorded
};

// Gradients of a parameter that have come, and how many will.
struct Awaited {
  std::size_t missing = 0;
  at::Tensor sum;
};

}  // namespace

DeferredGradients::Recording::Recording(DeferredGradients& to)
    : guard_(detail::kRecordingMark, std::make_shared<Mark>(&to)) {}
DeferredGradients::Recording::~Recording() = default;

void DeferredGradients::record(const at::Tensor& parameter, std::vector<at::Tensor> kept,
                               Compute compute) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back({parameter, std::move(kept), std::move(compute)});
}

void DeferredGradients::run() { run(detail::accumulate); }

void DeferredGradients::run(const Accept& accept) {
  std::deque<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  std::unordered_map<c10::TensorImpl*, Awaited> awaited;
  for (const Task& task : tasks) ++awaited[task.parameter.unsafeGetTensorImpl()].missing;
  const at::NoGradGuard no_grad;
  const c10::DebugInfoGuard now(detail::kRecordingMark, std::make_shared<Mark>(nullptr));
  for (; !tasks.empty(); tasks.pop_front()) {
    Task& task = tasks.front();
    at::Tensor gradient = task.compute();
    task.compute = nullptr;
    task.kept.clear();
    Awaited& all = awaited[task.parameter.unsafeGetTensorImpl()];
    if (all.sum.defined() && gradient.defined()) gradient = all.sum + gradient;
    if (gradient.defined()) all.sum = std::move(gradient);
    if (--all.missing == 0) accept(task.parameter, std::move(all.sum));
  }
}

void DeferredGradients::clear() {
  const std::lock_guard lock(mutex_);
  tasks_.clear();
}

std::int64_t DeferredGradients::bytes() const { return detail::distinct_bytes(kept()); }

std::vector<at::Tensor> DeferredGradients::kept() const {
  const std::lock_guard lock(mutex_);
  std::vector<at::Tensor> all;
  for (const Task& task : tasks_) all.insert(all.end(), task.kept.begin(), task.kept.end());
  return all;
}

std::vector<at::Tensor> DeferredGradients::parameters() const {
  const std::lock_guard lock(mutex_);
  std::vector<at::Tensor> all;
  std::unordered_set<c10::TensorImpl*> seen;
  for (const Task& task : tasks_) {
    if (seen.insert(task.parameter.unsafeGetTensorImpl()).second) all.push_back(task.parameter);
  }
  return all;
}

namespace detail {

DeferredGradients* recording_of(const at::Tensor& parameter) {
  const auto* mark =
      static_cast<const Mark*>(c10::ThreadLocalDebugInfo::get(detail::kRecordingMark));
  const bool takes = mark != nullptr && mark->to != nullptr && !at::GradMode::is_enabled() &&
                     parameter.is_leaf() && parameter.requires_grad();
  return takes ? mark->to : nullptr;
}

std::int64_t distinct_bytes(const std::vector<at::Tensor>& tensors) {
  std::unordered_set<const c10::StorageImpl*> seen;
  std::int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    const c10::Storage& memory = tensor.storage();
    if (seen.insert(memory.unsafeGetStorageImpl()).second) {
      bytes += static_cast<std::int64_t>(memory.nbytes());
    }
  }
  return bytes;
}

void accumulate(const at::Tensor& parameter, at::Tensor gradient) {
  using torch::autograd::variable_list;
  const at::NoGradGuard no_grad;
  const auto accumulation = torch::autograd::impl::grad_accumulator(parameter);
  variable_list inputs;
  inputs.push_back(std::move(gradient));
  for (const auto& hook : accumulation->pre_hooks()) inputs = (*hook)(inputs);
  // It takes over a gradient that nobody else holds.
  if (accumulation->post_hooks().empty()) {
    (*accumulation)(std::move(inputs));
    return;
  }
  variable_list outputs = (*accumulation)(variable_list(inputs));
  for (const auto& hook : accumulation->post_hooks()) outputs = (*hook)(outputs, inputs);
}

}  // namespace detail
}  // namespace trireme::ops
