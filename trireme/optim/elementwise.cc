// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/elementwise.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <optional>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/ops/cuda/device_scope.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/ops/tensor_view.h"
#include "trireme/optim/cuda/kernels.h"

namespace trireme::optim {

namespace {

// Loshchilov and Hutter 2019, algorithm 2; bias-corrected as in torch.optim.AdamW.
ElementwiseKernel adamw_kernel(const OptimizerConfig& config, const StepScalars& scalars) {
  return [s = adam_scalars(config, scalars),
          keep = kept_by_decay(scalars.learning_rate, *config.weight_decay)](
             const ElementwisePart& part, const detail::UpdateExtras& extras) {
    detail::adamw_update(s, part.decays ? keep : 1.0F, part.count, part.weights, part.gradients,
                         part.moments[0], part.moments[1], extras);
  };
}

// Kingma and Ba 2015, algorithm 1; decay is part of the gradient, as in torch.optim.Adam.
ElementwiseKernel adam_kernel(const OptimizerConfig& config, const StepScalars& scalars) {
  return [s = adam_scalars(config, scalars), decay = static_cast<float>(*config.weight_decay)](
             const ElementwisePart& part, const detail::UpdateExtras& extras) {
    detail::adam_update(s, part.decays ? decay : 0.0F, part.count, part.weights, part.gradients,
                        part.moments[0], part.moments[1], extras);
  };
}

// Chen et al. 2023, algorithm 2.
ElementwiseKernel lion_kernel(const OptimizerConfig& config, const StepScalars& scalars) {
  return [s = lion_scalars(config, scalars),
          keep = kept_by_decay(scalars.learning_rate, *config.weight_decay)](
             const ElementwisePart& part, const detail::UpdateExtras& extras) {
    detail::lion_update(s, part.decays ? keep : 1.0F, part.count, part.weights, part.gradients,
                        part.moments[0], extras);
  };
}

// With momentum as in torch.optim.SGD: a sum of gradients, not a mean.
ElementwiseKernel sgd_kernel(const OptimizerConfig& config, const StepScalars& scalars) {
  return [s = sgd_scalars(config, scalars), decay = static_cast<float>(*config.weight_decay)](
             const ElementwisePart& part, const detail::UpdateExtras& extras) {
    detail::sgd_update(s, part.decays ? decay : 0.0F, part.count, part.weights, part.gradients,
                       part.moments[0], extras);
  };
}

// Duchi, Hazan and Singer 2011, with the diagonal matrix; decay is part of the gradient and epsilon
// is added to the root, as in torch.optim.Adagrad.
ElementwiseKernel adagrad_kernel(const OptimizerConfig& config, const StepScalars& scalars) {
  return [s = adagrad_scalars(config, scalars), decay = static_cast<float>(*config.weight_decay)](
             const ElementwisePart& part, const detail::UpdateExtras& extras) {
    detail::adagrad_update(s, part.decays ? decay : 0.0F, part.count, part.weights, part.gradients,
                           part.moments[0], extras);
  };
}

class ElementwiseOptimizer final : public ShardOptimizer {
 public:
  ElementwiseOptimizer(ElementwiseMethod method, const OptimizerConfig& config,
                       const OptimizerSpace& space);

  std::vector<OptimizerState> state() override;
  bool works_by_parts() const override { return shard().device().is_cpu(); }

 protected:
  void update(const OptimizerUpdate& update, const StepScalars& scalars) override;
  void take_state(std::span<const OptimizerState> state) override;

 private:
  void update_range(const OptimizerUpdate& update, const ElementwiseKernel& kernel,
                    const ShardRange& range);
  void update_on_cuda(const OptimizerUpdate& update, const StepScalars& scalars);

  ElementwiseMethod method_;
  std::vector<ElementRange> decaying_;
  std::vector<std::string> names_;  // of all parameters
  std::vector<Moment> moments_;
  // Of each piece: begin, end, begin, end, ... of what decays, counted in the piece, i64 on the
  // device; CUDA only.
  std::vector<at::Tensor> bounds_;
};

at::Tensor bounds_on(c10::Device device, const std::vector<ElementRange>& ranges,
                     const ShardPiece& piece) {
  std::vector<std::int64_t> bounds;
  for_each_part(ranges, piece.begin, piece.end,
                [&](std::int64_t begin, std::int64_t end, bool inside) {
                  if (!inside) return;
                  bounds.push_back(begin - piece.begin);
                  bounds.push_back(end - piece.begin);
                });
  const at::Tensor here = at::empty({static_cast<std::int64_t>(bounds.size())}, at::kLong);
  std::copy(bounds.begin(), bounds.end(), here.data_ptr<std::int64_t>());
  return here.to(device);
}

ElementwiseOptimizer::ElementwiseOptimizer(ElementwiseMethod method, const OptimizerConfig& config,
                                           const OptimizerSpace& space)
    : ShardOptimizer(config, space),
      method_(std::move(method)),
      decaying_(decaying_ranges(space.parameters)) {
  for (const OptimizerParameter& parameter : space.parameters) {
    names_.push_back(parameter.entry.name);
  }
  const bool bytes = config.state == "8bit";
  const bool on_cuda =
      ops::kHasCudaKernels && method_.has_cuda_kernel && !bytes && space.device.is_cuda();
  if (!space.device.is_cpu() && !on_cuda) {
    throw_error<ShapeError>("the optimizer {} with {} state has no kernels for buffers on {}",
                            config.name, config.state, space.device.str());
  }
  for (const auto& [name, of_bytes] : method_.moments) {
    moments_.emplace_back(name, bytes ? of_bytes : Moment::Storage::kF32, shard().size(),
                          space.device);
  }
  if (!on_cuda) return;
  for (const ShardPiece& piece : shard().pieces()) {
    bounds_.push_back(bounds_on(space.device, decaying_, piece));
  }
}

std::vector<OptimizerState> ElementwiseOptimizer::state() {
  std::vector<OptimizerState> all;
  for (const Moment& moment : moments_) {
    all.push_back({.name = moment.name(),
                   .values = moment.values(),
                   .pieces = shard().pieces(),
                   .parameters = names_});
  }
  return all;
}

void ElementwiseOptimizer::take_state(std::span<const OptimizerState> state) {
  for (std::size_t i = 0; i < moments_.size(); ++i) moments_[i].set_values(state[i].values);
}

void ElementwiseOptimizer::update(const OptimizerUpdate& update, const StepScalars& scalars) {
  if (shard().device().is_cuda()) return update_on_cuda(update, scalars);
  const ElementwiseKernel kernel = method_.kernel(config(), scalars);
  const bool bytes = !moments_.empty() && moments_[0].is_8bit();
  shard().for_each_range([&](const ShardRange& range) {
    if (!bytes) return update_range(update, kernel, range);
    // In parts whose values stay in the first-level cache between decoding and coding.
    for (std::int64_t at = 0; at < range.count(); at += kShardBlock) {
      const std::int64_t end = std::min(at + kShardBlock, range.count());
      update_range(update, kernel, range.part(at, end));
    }
  });
}

void ElementwiseOptimizer::update_range(const OptimizerUpdate& update,
                                        const ElementwiseKernel& kernel, const ShardRange& range) {
  const PieceUpdate& piece = update.pieces[range.piece];
  float* weights = piece.weights.data_ptr<float>() + range.in_piece;
  const std::int64_t end_in_piece = range.in_piece + range.count();
  float* gradients = update.parts == nullptr
                         ? piece.gradients.data_ptr<float>() + range.in_piece
                         : update.parts->gradients(range.piece, range.in_piece, end_in_piece);
  const detail::UpdateExtras all =
      extras_of(piece, range.begin, range.in_piece, update.clear_gradients);
  float* scratch = nullptr;
  if (!moments_.empty() && moments_[0].is_8bit()) {
    scratch = static_cast<float*>(
        ops::thread_scratch(ops::Scratch::kOther, 2 * kShardBlock * sizeof(float)));
  }
  float* moments[2] = {nullptr, nullptr};
  for (std::size_t m = 0; m < moments_.size(); ++m) {
    moments[m] = moments_[m].open(range.in_shard, range.count(), scratch);
    if (scratch != nullptr) scratch += kShardBlock;
  }
  for_each_part(decaying_, range.begin, range.end,
                [&](std::int64_t begin, std::int64_t end, bool decays) {
                  const std::int64_t at = begin - range.begin;
                  ElementwisePart part{.count = end - begin,
                                       .weights = weights + at,
                                       .gradients = gradients + at,
                                       .decays = decays};
                  for (std::size_t m = 0; m < moments_.size(); ++m) {
                    part.moments[m] = moments[m] + at;
                  }
                  kernel(part, detail::extras_from(all, at));
                });
  for (std::size_t m = 0; m < moments_.size(); ++m) {
    moments_[m].close(range.in_shard, range.count(), moments[m],
                      {.stochastic = true,
                       .random_key = all.random_key + static_cast<std::uint32_t>(m + 1),
                       .first_element = static_cast<std::uint64_t>(range.begin)});
  }
  if (update.parts != nullptr) update.parts->done(range.piece, range.in_piece, end_in_piece);
}

void ElementwiseOptimizer::update_on_cuda([[maybe_unused]] const OptimizerUpdate& update,
                                          [[maybe_unused]] const StepScalars& scalars) {
  if constexpr (ops::kHasCudaKernels) {
    const ops::cuda::DeviceScope scope(shard().device());
    const at::Tensor& factor = update.gradient_factor;
    for (std::size_t i = 0; i < update.pieces.size(); ++i) {
      const PieceUpdate& piece = update.pieces[i];
      const ShardPiece& place = shard().pieces()[i];
      cuda::adamw_update(
          adam_scalars(config(), scalars),
          kept_by_decay(scalars.learning_rate, *config().weight_decay),
          factor.defined() ? factor.data_ptr<float>() : nullptr,
          {.count = place.count(),
           .weights = piece.weights.data_ptr<float>(),
           .gradients = piece.gradients.data_ptr<float>(),
           .first_moment = moments_[0].open(place.local_begin, place.count(), nullptr),
           .second_moment = moments_[1].open(place.local_begin, place.count(), nullptr),
           .bounds = bounds_[i].data_ptr<std::int64_t>(),
           .num_bounds = bounds_[i].numel()},
          extras_of(piece, place.begin, 0, update.clear_gradients), scope.stream());
    }
  }
}

std::optional<ElementwiseMethod> method_of(const OptimizerConfig& config) {
  using enum Moment::Storage;
  const ElementwiseMethod::MomentKind first{"first_moment", kSigned8bit},
      second{"second_moment", kUnsigned8bit}, momentum{"momentum", kSigned8bit};
  if (config.name == "adamw") {
    return ElementwiseMethod{{first, second}, adamw_kernel, /*has_cuda_kernel=*/true};
  }
  if (config.name == "adam") return ElementwiseMethod{{first, second}, adam_kernel};
  if (config.name == "lion") return ElementwiseMethod{{first}, lion_kernel};
  // Its sum grows for ever: 8-bit codes, rounded to a share of a block's largest, would lose the
  // small ones. validate() refuses them.
  if (config.name == "adagrad") {
    return ElementwiseMethod{{{"sum_of_squares", kUnsigned8bit}}, adagrad_kernel};
  }
  if (config.name != "sgd") return std::nullopt;
  if (*config.momentum > 0) return ElementwiseMethod{{momentum}, sgd_kernel};
  return ElementwiseMethod{{}, sgd_kernel};
}

}  // namespace

std::unique_ptr<Optimizer> make_elementwise(const OptimizerConfig& config,
                                            const OptimizerSpace& space) {
  std::optional<ElementwiseMethod> method = method_of(config);
  if (!method) return nullptr;
  return std::make_unique<ElementwiseOptimizer>(std::move(*method), config, space);
}

std::int64_t elementwise_state_bytes(const OptimizerConfig& config, std::int64_t elements) {
  const std::optional<ElementwiseMethod> method = method_of(config);
  if (!method) return 0;
  const auto moments = static_cast<std::int64_t>(method->moments.size());
  return moments * Moment::bytes(config.state == "8bit" ? Moment::Storage::kSigned8bit
                                                        : Moment::Storage::kF32,
                                 elements);
}

}  // namespace trireme::optim
