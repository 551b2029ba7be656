// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Dense ranges. State as bytes: the optimizer's steps (i64), the weights, then each state of the
// optimizer, f32, in its order.

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "trireme/comm/codec/block_codecs.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/reduction_tree.h"
#include "trireme/comm/shm/shm_copy.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/ps/dense_codec.h"
#include "trireme/ps/range_storage.h"

namespace trireme::ps {
namespace {

std::size_t float_bytes(std::int64_t count) {
  return static_cast<std::size_t>(count) * sizeof(float);
}

at::Tensor view_of(Bytes bytes) {
  // LibTorch has no tensors of constant values.
  return at::from_blob(const_cast<std::byte*>(bytes.data()),
                       {static_cast<std::int64_t>(bytes.size() / sizeof(float))}, at::kFloat);
}

Bytes bytes_of(const at::Tensor& values) {
  return {reinterpret_cast<const std::byte*>(values.data_ptr<float>()),
          float_bytes(values.numel())};
}

// Contributions as f32.
class Decoded {
 public:
  Decoded(std::span<const Contribution> contributions, std::int64_t count) {
    for (const Contribution& contribution : contributions) {
      if (contribution.codec.empty()) {
        inputs_.push_back(reinterpret_cast<const float*>(contribution.payload.data()));
        continue;
      }
      decoded_.push_back(at::zeros({count}, at::kFloat));
      float* const values = decoded_.back().data_ptr<float>();
      decode_dense(contribution.codec, contribution.payload,
                   {values, static_cast<std::size_t>(count)});
      inputs_.push_back(values);
    }
  }
  // The sum of elements [begin, end).
  void sum(std::int64_t begin, std::int64_t end, float* out) const {
    std::vector<const void*> inputs;
    for (const float* input : inputs_) inputs.push_back(input + begin);
    reduce_tree(inputs, out, end - begin, DType::kF32, ReduceOp::kSum);
  }

 private:
  std::vector<at::Tensor> decoded_;
  std::vector<const float*> inputs_;
};

// A part is summed before it is updated, and written to who wants it afterwards.
class SumAndRead final : public optim::PartWork {
 public:
  SumAndRead(const Decoded& contributions, const float* weights,
             std::span<const std::span<std::byte>> outs)
      : contributions_(contributions), weights_(weights), outs_(outs) {}

  float* gradients(std::size_t, std::int64_t begin, std::int64_t end) override {
    thread_local std::vector<float> sum;
    sum.resize(std::max(sum.size(), static_cast<std::size_t>(end - begin)));
    contributions_.sum(begin, end, sum.data());
    return sum.data();
  }
  void done(std::size_t, std::int64_t begin, std::int64_t end) override {
    for (const std::span<std::byte> out : outs_) {
      stream_bytes(out.data() + float_bytes(begin), weights_ + begin, float_bytes(end - begin));
    }
  }

 private:
  const Decoded& contributions_;
  const float* weights_;
  std::span<const std::span<std::byte>> outs_;
};

class DenseStorage final : public RangeStorage {
 public:
  DenseStorage(const optim::OptimizerConfig& optimizer, const optim::OptimizerSpace& space)
      : count_(space.segments[0].end - space.segments[0].begin),
        weights_(at::zeros({count_}, at::kFloat)),
        optimizer_(optim::make_optimizer(optimizer, space)) {}

  void init(Bytes values) override {
    if (values.size() != float_bytes(count_)) return import_state(values);
    std::memcpy(weights_.data_ptr<float>(), values.data(), values.size());
  }
  void check_init(Bytes values) const override {
    if (values.size() != float_bytes(count_)) check_state(values);
  }

  void check(const Contribution& contribution) const override {
    if (contribution.codec.empty()) return check(contribution.payload, "contribution");
    check_dense(contribution.codec, contribution.payload, count_);
  }

  std::span<std::byte> sum(std::span<const Contribution> contributions,
                           const std::function<std::span<std::byte>(std::size_t)>& make) override {
    for (const Contribution& contribution : contributions) check(contribution);
    const Decoded decoded(contributions, count_);
    const std::span<std::byte> out = make(float_bytes(count_));
    decoded.sum(0, count_, reinterpret_cast<float*>(out.data()));
    return out;
  }

  std::vector<double> block_sums(Bytes update) override {
    check(update, "update");
    const at::Tensor sums = optim::block_sums(view_of(update));
    const auto* values = sums.data_ptr<double>();
    return {values, values + sums.numel()};
  }

  void apply(const Contribution& update, const UpdateScalars& scalars) override {
    check(update.payload, "update");
    const std::array pieces = {
        optim::PieceUpdate{.weights = weights_, .gradients = view_of(update.payload)}};
    optimizer_->step({.pieces = pieces,
                      .learning_rate = scalars.learning_rate,
                      .gradient_scale = scalars.gradient_scale});
  }

  bool one_pass() const override { return optimizer_->works_by_parts(); }
  void sum_apply_read(std::span<const Contribution> contributions, const UpdateScalars& scalars,
                      std::span<const std::span<std::byte>> outs) override {
    for (const Contribution& contribution : contributions) check(contribution);
    const Decoded decoded(contributions, count_);
    SumAndRead parts(decoded, weights_.data_ptr<float>(), outs);
    const std::array pieces = {optim::PieceUpdate{.weights = weights_}};
    optimizer_->step({.pieces = pieces,
                      .learning_rate = scalars.learning_rate,
                      .gradient_scale = scalars.gradient_scale,
                      .parts = &parts});
  }

  std::size_t read_bytes(const Contribution&) const override { return float_bytes(count_); }
  void read(const Contribution&, std::span<std::byte> out) const override {
    // Past the caches: the worker reads it when all its ranges are there.
    stream_bytes(out.data(), weights_.data_ptr<float>(), out.size());
  }

  void export_state(const std::function<void(Bytes)>& take) const override {
    const std::int64_t steps = optimizer_->steps();
    take(std::as_bytes(std::span(&steps, 1)));
    take(bytes_of(weights_));
    for (const optim::OptimizerState& state : optimizer_->state()) take(bytes_of(state.values));
  }

  void import_state(Bytes state) override {
    check_state(state);
    std::vector<optim::OptimizerState> parts = optimizer_->state();
    std::int64_t steps = 0;
    const auto next = [&state](void* to, std::size_t size) {
      std::copy_n(state.data(), size, static_cast<std::byte*>(to));
      state = state.subspan(size);
    };
    next(&steps, sizeof(steps));
    next(weights_.data_ptr<float>(), float_bytes(count_));
    for (optim::OptimizerState& part : parts) {
      next(part.values.data_ptr<float>(), float_bytes(part.values.numel()));
    }
    optimizer_->set_state(parts);
    optimizer_->set_steps(steps);
  }

  std::int64_t memory_bytes() const override {
    std::size_t bytes = float_bytes(count_);
    for (const optim::OptimizerState& state : optimizer_->state()) {
      bytes += float_bytes(state.values.numel());
    }
    return static_cast<std::int64_t>(bytes);
  }

 private:
  void check_state(Bytes state) const {
    std::size_t wanted = sizeof(std::int64_t) + float_bytes(count_);
    for (const optim::OptimizerState& part : optimizer_->state()) {
      wanted += float_bytes(part.values.numel());
    }
    if (state.size() == wanted) return;
    throw_error<ProtocolError>("a state of {} bytes for a dense range whose state has {}",
                               state.size(), wanted);
  }
  void check(Bytes bytes, const char* what) const {
    if (bytes.size() == float_bytes(count_)) return;
    throw_error<ProtocolError>("{} of {} bytes for a dense range of {} elements", what,
                               bytes.size(), count_);
  }

  std::int64_t count_;
  at::Tensor weights_;
  std::unique_ptr<optim::Optimizer> optimizer_;
};

}  // namespace

void RangeStorage::sum_apply_read(std::span<const Contribution>, const UpdateScalars&,
                                  std::span<const std::span<std::byte>>) {
  throw_error<InternalError>("this storage takes several passes");
}

std::unique_ptr<RangeStorage> make_dense_storage(const JobLayout& layout, std::size_t range) {
  return std::make_unique<DenseStorage>(layout.dense.optimizer, layout.dense_space(range));
}

std::unique_ptr<RangeStorage> make_storage(const JobLayout& layout, std::size_t range) {
  if (range < layout.dense_ranges().size()) return make_dense_storage(layout, range);
  return make_slice_storage(layout);
}

}  // namespace trireme::ps
