// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The gradients of parameters later than those of activations.
//
// A pipeline's earlier stage waits for the gradients of a stage's inputs, and nobody for those of
// its parameters: they can be computed when there is time (zero-bubble schedules). Under a
// Recording the operations of ops/ compute only the former and note what is to be done for the
// latter.
//
//   ops::DeferredGradients later;
//   {
//     const ops::DeferredGradients::Recording recording(later);
//     loss.backward();  // no products for parameters
//   }
//   later.run();        // here they are
//
// For a whole graph, LibTorch's operations in it too, see split_backward.h.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <utility>
#include <vector>

namespace trireme::ops {

// Of one backward pass. Recorded are the gradients of parameters (leaves that require one): of
// matrices, biases, experts' stacks and embeddings' rows as what they will be computed from, which
// is kept until then; of norms, whose sums come with the input's gradient, as these sums. Not of
// linear_cross_entropy()'s matrix, whose gradient was made in the forward pass: that is added, or
// returned to autograd, at once. Nor of weights that were computed, whose gradients autograd hands
// on.
class DeferredGradients {
 public:
  // Applies to backward passes that this thread starts while it lives, on whatever threads LibTorch
  // runs them, and to those inside of checkpoint(). May nest: the innermost records. Hooks of a
  // recorded parameter's accumulation run in the pass with nothing added (unless a SplitBackward
  // keeps them for later), and again in run().
  class Recording {
   public:
    explicit Recording(DeferredGradients& to);
    ~Recording();
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;

   private:
    c10::DebugInfoGuard guard_;
  };

  // The gradient of a parameter, f32 or of its dtype; undefined when it was added to grad() already
  // (DirectGradients).
  using Compute = std::function<at::Tensor()>;
  // What becomes of a parameter's whole gradient.
  using Accept = std::function<void(const at::Tensor& parameter, at::Tensor gradient)>;

  DeferredGradients() = default;
  DeferredGradients(const DeferredGradients&) = delete;
  DeferredGradients& operator=(const DeferredGradients&) = delete;

  // Adds all that was recorded to the parameters' grad(), in the order of recording, and forgets
  // it, what each gradient came from as soon as it is there. A parameter's accumulation, with its
  // hooks, runs when its last gradient has come; that of Tensor::register_hook() may get nothing to
  // see. Under the DirectGradients of a plain pass grad() gets that pass's bits, in every dtype, if
  // the pass uses each parameter once; without, likewise. Parameters must have their shapes then,
  // if not their values. Also after an exception nothing is recorded any more. Blocking; on this
  // thread.
  void run();
  // The same, but each parameter's gradient (undefined: added already) goes to accept.
  void run(const Accept& accept);

  // Forgets all.
  void clear();

  // Memory that what is recorded holds, each piece once: also what a graph would hold anyway. The
  // parameters are not counted.
  std::int64_t bytes() const;
  // What bytes() counts: tensors, some maybe twice.
  std::vector<at::Tensor> kept() const;
  // Those that run() adds something to, each once, in the order in which they were recorded.
  std::vector<at::Tensor> parameters() const;

  // Called by the operations, on any thread. kept: what compute holds, for bytes().
  void record(const at::Tensor& parameter, std::vector<at::Tensor> kept, Compute compute);

 private:
  struct Task {
    at::Tensor parameter;
    std::vector<at::Tensor> kept;
    Compute compute;
  };

  mutable std::mutex mutex_;
  std::deque<Task> tasks_;  // guarded by mutex_
};

namespace detail {

// What records this parameter's gradient in the backward pass under way; null: compute it now.
DeferredGradients* recording_of(const at::Tensor& parameter);

// Bytes of the memory behind the tensors, each piece once; some may be undefined.
std::int64_t distinct_bytes(const std::vector<at::Tensor>& tensors);

// Runs the parameter's accumulation with this gradient (undefined: with nothing to add), its hooks
// too, as autograd's engine would.
void accumulate(const at::Tensor& parameter, at::Tensor gradient);

// compute(), the gradient of the parameter as backward() returns it; or nothing, and compute() is
// called by DeferredGradients::run(). It may hold only what `kept` lists, tensors as they are, and
// values.
template <class F>
at::Tensor now_or_later(const at::Tensor& parameter, std::initializer_list<at::Tensor> kept,
                        F&& compute) {
  if (DeferredGradients* recording = recording_of(parameter)) {
    recording->record(parameter, kept, std::forward<F>(compute));
    return {};
  }
  return compute();
}

}  // namespace detail
}  // namespace trireme::ops
