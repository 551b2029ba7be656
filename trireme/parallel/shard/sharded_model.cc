// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/sharded_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/parallel/before_backward.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/model_agreement.h"
#include "trireme/parallel/shard/device_link.h"
#include "trireme/parallel/shard/device_weights.h"
#include "trireme/parallel/shard/flat_weights.h"
#include "trireme/parallel/shard/own_weights.h"
#include "trireme/parallel/shard/piece_parts.h"
#include "trireme/parallel/shard/reduced_gradients.h"
#include "trireme/parallel/shard/segment_counts.h"
#include "trireme/parallel/shard/shard_groups.h"
#include "trireme/parallel/shard/sharded_gradients.h"
#include "trireme/parallel/shard/unit_weights.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

const ShardOptions& checked(const ShardOptions& options) {
  if (options.stage < 0 || options.stage > 3) {
    throw_error<ConfigError>("stage {} of ZeRO: there are 0, 1, 2 and 3", options.stage);
  }
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16 && options.dtype != at::kHalf) {
    throw_error<ConfigError>("sharded models compute in f32, bf16 or f16, not in {}",
                             c10::toString(options.dtype));
  }
  if (options.stage == 0 && options.shard_ranks != 0) {
    throw_error<ConfigError>(
        "shard_ranks is {}, but in stage 0 of ZeRO nothing is sharded: leave it out, or use stage "
        "1, 2 or 3",
        options.shard_ranks == kHostRanks ? "auto" : fmt::format("{}", options.shard_ranks));
  }
  if (options.bucket_bytes < 1) {
    throw_error<ConfigError>("buckets of {} bytes: at least 1", options.bucket_bytes);
  }
  if (options.prefetch < 0 || options.gather_budget_bytes < 0) {
    throw_error<ConfigError>("prefetch is {} and the budget of gathered weights {}: at least 0",
                             options.prefetch, options.gather_budget_bytes);
  }
  return options;
}

ShardPlan plan_of(const Group& group, const ShardOptions& options) {
  return {group.size(), options.shard_ranks == kHostRanks ? host_shard_ranks(group.hosts())
                                                          : options.shard_ranks};
}

// Where the module computes.
c10::Device device_of(const torch::nn::Module& module) {
  for (const at::Tensor& parameter : module.parameters()) {
    if (parameter.requires_grad()) return parameter.device();
  }
  return at::kCPU;
}

std::unique_ptr<DeviceLink> make_link(const torch::nn::Module& module, bool offload) {
  const c10::Device device = device_of(module);
  if (offload) return std::make_unique<DeviceLink>(device);
  if (device.is_cpu()) return nullptr;
  throw_error<ConfigError>(
      "the parameters lie on {}, and sharded models are summed and updated in host memory: set "
      "ShardOptions::offload, or move the module to the CPU",
      device.str());
}

}  // namespace

struct ShardedModel::Impl {
  Impl(torch::nn::Module& module, Group& group_in, const ShardOptions& options_in)
      : options(checked(options_in)),
        link(make_link(module, options.offload)),
        group(group_in.duplicate("sharded")),
        groups(*group, plan_of(*group, options), "model") {
    check_same_model(*group, module);
    broadcast_model(*group, module);
    if (options.stage == 3) {
      make_units(module);
    } else if (link != nullptr) {
      make_device_weights(module);
    } else {
      make_flat(module);
    }
    cut_pieces();
  }

  bool sharded() const { return options.stage > 0; }
  bool has_masters() const { return options.dtype != at::kFloat; }

  // Stages 0 to 2 on the host.
  void make_flat(torch::nn::Module& module) {
    const ModuleLayout before = make_layout(module, options.units, options.filter);
    segments = options.stage == 2
                   ? before.units
                   : make_buckets(before.entries, before.size,
                                  options.bucket_bytes / static_cast<std::int64_t>(sizeof(float)));
    at::Tensor masters;
    if (has_masters()) masters = copy_pieces(before, own_pieces());
    flat = std::make_unique<FlatParameters>(module, options.dtype,
                                            FlatOptions{.units = options.units,
                                                        .filter = options.filter,
                                                        .gradients = options.stage < 2,
                                                        .group = group.get()});
    if (options.stage == 2) {
      gradients = std::make_unique<ShardedGradients>(
          flat->layout(), *group, groups.plan(),
          ShardedGradientsOptions{.stage = options.stage, .micro_batches = options.micro_batches});
    } else {
      gradients =
          std::make_unique<ReducedGradients>(*flat, *group, groups.plan(),
                                             ReducerOptions{.micro_batches = options.micro_batches,
                                                            .bucket_bytes = options.bucket_bytes,
                                                            .exchange_rows = all_reduce_rows},
                                             sharded());
    }
    weights = std::make_unique<FlatWeights>(
        *flat, std::move(masters), shard_group(),
        WeightStoreOptions{
            .dtype = options.dtype, .sharded_optimizer = sharded(), .segments = segments});
  }

  // Stages 0 to 2 on a device.
  void make_device_weights(torch::nn::Module& module) {
    const ModuleLayout before = make_layout(module, options.units, options.filter);
    segments = before.units;
    const at::Tensor masters = copy_pieces(before, own_pieces());
    flat = std::make_unique<FlatParameters>(
        module, options.dtype,
        FlatOptions{.units = options.units, .filter = options.filter, .gradients = false});
    gradients = std::make_unique<ShardedGradients>(
        flat->layout(), *group, groups.plan(),
        ShardedGradientsOptions{
            .stage = options.stage, .micro_batches = options.micro_batches, .link = link.get()});
    weights = std::make_unique<DeviceWeights>(*flat, masters, shard_group(),
                                              WeightStoreOptions{.dtype = options.dtype,
                                                                 .sharded_optimizer = sharded(),
                                                                 .segments = segments,
                                                                 .link = link.get()});
  }

  // Stage 3.
  void make_units(torch::nn::Module& module) {
    unit_layout =
        std::make_unique<ModuleLayout>(make_layout(module, options.units, options.filter));
    segments = unit_layout->units;
    auto store = std::make_unique<UnitWeights>(
        *unit_layout, copy_pieces(*unit_layout, own_pieces()), shard_group(),
        WeightStoreOptions{.dtype = options.dtype,
                           .sharded_optimizer = true,
                           .segments = segments,
                           .prefetch = options.prefetch,
                           .gather_budget_bytes = options.gather_budget_bytes,
                           .link = link.get()});
    gradients = std::make_unique<ShardedGradients>(
        *unit_layout, *group, groups.plan(),
        ShardedGradientsOptions{.stage = options.stage,
                                .micro_batches = options.micro_batches,
                                .on_unit = [this](std::size_t unit) { weights->release(unit); },
                                .link = link.get()});
    store->shrink();
    unit_weights = store.get();
    weights = std::move(store);
  }

  std::vector<ShardPiece> own_pieces() const {
    return sharded() ? shard_pieces(segments, shard_group().rank(), shard_group().size())
                     : shard_pieces(segments, 0, 1);
  }

  // The ranks of this rank's copy of the model.
  Group& shard_group() const { return groups.shard(*group); }

  // Among whom the pieces are cut; null: nobody.
  Group* sharers() const { return sharded() ? &shard_group() : nullptr; }

  const ModuleLayout& layout() const { return unit_layout ? *unit_layout : flat->layout(); }

  void cut_pieces() {
    shard = own_pieces();
    parts = std::make_unique<PieceParts>(layout(), shard, options.parts);
    for (const WeightStore::Piece& piece : weights->pieces()) {
      pieces.push_back({piece.weights, {}, piece.working_copy});
    }
  }

  // Optimizers write bf16 copies while they are at it; f16 ones are rounded here, to nearest.
  bool optimizer_rounds() const { return options.dtype == at::kBFloat16; }

  std::vector<optim::PieceUpdate> pieces_of_optimizer() const {
    std::vector<optim::PieceUpdate> result = pieces;
    if (optimizer_rounds()) return result;
    for (optim::PieceUpdate& piece : result) piece.working_copy = at::Tensor();
    return result;
  }

  // optimizer: rounds as its last step did; null: to nearest.
  void round_copies(const optim::Optimizer* optimizer) {
    if (!has_masters()) return;
    if (optimizer != nullptr && optimizer_rounds()) return optimizer->round(pieces);
    const at::NoGradGuard no_grad;
    for (const optim::PieceUpdate& piece : pieces) piece.working_copy.copy_(piece.weights);
  }

  // 0: none.
  std::size_t unit_number(const torch::nn::Module& unit) const {
    const auto found = std::find(options.units.begin(), options.units.end(), &unit);
    if (found == options.units.end()) {
      throw_error<ConfigError>("{} is no unit of this sharded model: name it in its options",
                               unit.name());
    }
    return static_cast<std::size_t>(found - options.units.begin()) + 1;
  }

  ShardOptions options;
  std::unique_ptr<DeviceLink> link;  // with offload; the stores copy by it
  std::unique_ptr<Group> group;
  ShardGroups groups;
  std::vector<FlatSegment> segments;
  std::vector<ShardPiece> shard;
  std::unique_ptr<FlatParameters> flat;       // stages 0 to 2
  std::unique_ptr<ModuleLayout> unit_layout;  // stage 3
  std::unique_ptr<WeightStore> weights;
  UnitWeights* unit_weights = nullptr;  // the same in stage 3
  std::unique_ptr<GradientStore> gradients;
  std::vector<optim::PieceUpdate> pieces;
  std::unique_ptr<PieceParts> parts;
};

ShardedModel::ShardedModel(torch::nn::Module& module, Group& group, const ShardOptions& options)
    : impl_(std::make_unique<Impl>(module, group, options)) {}
ShardedModel::~ShardedModel() = default;
ShardedModel::ShardedModel(ShardedModel&&) noexcept = default;
ShardedModel& ShardedModel::operator=(ShardedModel&&) noexcept = default;

const ModuleLayout& ShardedModel::layout() const { return impl_->layout(); }
const std::vector<optim::PieceUpdate>& ShardedModel::pieces() const { return impl_->pieces; }
const std::vector<ShardPiece>& ShardedModel::shard() const { return impl_->shard; }

optim::OptimizerSpace ShardedModel::space() const {
  optim::OptimizerSpace space;
  space.parameters = optimizer_parameters(layout());
  space.segments = impl_->segments;
  space.group = impl_->sharers();
  return space;
}

const std::vector<std::int64_t>& ShardedModel::micro_batches() const {
  return impl_->gradients->micro_batches();
}

at::Tensor ShardedModel::forward(const std::function<at::Tensor()>& f) {
  impl_->weights->begin_pass();
  at::Tensor result = f();
  if (!result.requires_grad()) impl_->weights->end_pass();
  return result;
}

std::vector<at::Tensor> ShardedModel::run(const torch::nn::Module& unit,
                                          const std::vector<at::Tensor>& inputs,
                                          const Computation& f) {
  const std::size_t number = impl_->unit_number(unit);
  if (impl_->options.stage < 3) return f(inputs);
  WeightStore* weights = impl_->weights.get();
  weights->enter(number, false);
  std::vector<at::Tensor> outputs = f(inputs);
  const bool backward_follows = std::any_of(outputs.begin(), outputs.end(), [](const auto& y) {
    return y.defined() && y.requires_grad();
  });
  weights->leave(number, backward_follows);
  return before_backward(outputs, [weights, number] { weights->enter(number, true); });
}

at::Tensor ShardedModel::run(const torch::nn::Module& unit, const at::Tensor& input,
                             const std::function<at::Tensor(const at::Tensor&)>& f) {
  return run(unit, std::vector<at::Tensor>{input},
             [&](const std::vector<at::Tensor>& inputs) {
               return std::vector<at::Tensor>{f(inputs[0])};
             })
      .front();
}

void ShardedModel::backward(const at::Tensor& loss, double weight) {
  impl_->gradients->backward(loss, weight);
  impl_->weights->end_pass();
}

void ShardedModel::add(double weight, const std::function<void()>& f) {
  impl_->gradients->add(weight, f);
}

void ShardedModel::hold_weights(bool held) { impl_->weights->hold(held); }

void ShardedModel::finish_gradients() {
  impl_->gradients->finish();
  const std::vector<at::Tensor> sums = impl_->gradients->pieces();
  for (std::size_t i = 0; i < sums.size(); ++i) impl_->pieces[i].gradients = sums[i];
  impl_->parts->sum_partial(impl_->pieces, impl_->sharers());
}

GradientSquares ShardedModel::gradient_squares() {
  const at::Tensor sums =
      at::zeros({layout().size / kShardBlock}, at::TensorOptions().dtype(at::kDouble));
  for (std::size_t i = 0; i < impl_->shard.size(); ++i) {
    const ShardPiece& piece = impl_->shard[i];
    if (piece.count() == 0) continue;
    sums.narrow(0, piece.begin / kShardBlock, piece.count() / kShardBlock)
        .copy_(optim::block_sums(impl_->pieces[i].gradients));
  }
  // Exact: all but one summand are zeros.
  if (impl_->sharded()) impl_->shard_group().all_reduce(buffer_of_tensor(sums));
  return {sums, impl_->parts->squares_elsewhere(impl_->pieces, impl_->sharers())};
}

double ShardedModel::gradient_norm() {
  const GradientSquares squares = gradient_squares();
  return impl_->parts->whole_norm(optim::norm_of_blocks(squares.blocks), squares.elsewhere);
}

void ShardedModel::step(optim::Optimizer& optimizer, double learning_rate, double scale) {
  const std::vector<optim::PieceUpdate> pieces = impl_->pieces_of_optimizer();
  optimizer.step({.pieces = pieces,
                  .learning_rate = learning_rate,
                  .gradient_scale = scale,
                  .clear_gradients = true});
  impl_->gradients->clear(true);
  if (!impl_->optimizer_rounds()) impl_->round_copies(nullptr);
  impl_->weights->publish();
}

void ShardedModel::drop_gradients() { impl_->gradients->clear(false); }

at::Tensor ShardedModel::gather_shard(const at::Tensor& shard) {
  const bool root = impl_->group->rank() == 0;
  if (!impl_->sharded()) return root ? shard : at::Tensor();
  // One copy is enough.
  if (impl_->groups.plan().replica_of(impl_->group->rank()) != 0) return {};
  Group& group = impl_->shard_group();
  const at::Tensor whole =
      root ? at::empty({layout().size}, at::TensorOptions().dtype(at::kFloat)) : at::Tensor();
  for (std::size_t i = 0; i < impl_->segments.size(); ++i) {
    const FlatSegment& segment = impl_->segments[i];
    const std::int64_t count = segment.end - segment.begin;
    if (count == 0) continue;
    const ShardPiece& piece = impl_->shard[i];
    group.gather(buffer_of_tensor(shard.narrow(0, piece.local_begin, piece.count())),
                 root ? buffer_of_tensor(whole.narrow(0, segment.begin, count)) : Buffer{}, 0,
                 segment_counts(segment, group.size()));
  }
  return whole;
}

at::Tensor ShardedModel::gather_weights() {
  const bool whole_in_flat = !impl_->sharded() && !impl_->has_masters() && impl_->link == nullptr;
  if (whole_in_flat) return impl_->flat->data();
  const at::Tensor shard =
      at::empty({shard_size(impl_->shard)}, at::TensorOptions().dtype(at::kFloat));
  for (std::size_t i = 0; i < impl_->shard.size(); ++i) {
    const ShardPiece& piece = impl_->shard[i];
    shard.narrow(0, piece.local_begin, piece.count()).copy_(impl_->pieces[i].weights);
  }
  return gather_shard(shard);
}

void ShardedModel::scatter_shard(const at::Tensor& whole, const at::Tensor& shard) const {
  for (const ShardPiece& piece : impl_->shard) {
    shard.narrow(0, piece.local_begin, piece.count())
        .copy_(whole.narrow(0, piece.begin, piece.count()));
  }
}

void ShardedModel::set_weights(const at::Tensor& whole, const optim::Optimizer* optimizer) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < impl_->shard.size(); ++i) {
    const ShardPiece& piece = impl_->shard[i];
    impl_->pieces[i].weights.copy_(whole.narrow(0, piece.begin, piece.count()));
  }
  publish_weights(optimizer);
}

void ShardedModel::publish_weights(const optim::Optimizer* optimizer) {
  impl_->round_copies(optimizer);
  impl_->weights->publish();
}

const StepReport& ShardedModel::report() const { return impl_->gradients->report(); }

std::int64_t ShardedModel::bytes_sent() {
  return impl_->group->bytes_sent() + impl_->groups.bytes_sent() + impl_->gradients->bytes_sent() +
         (impl_->unit_weights != nullptr ? impl_->unit_weights->bytes_sent() : 0);
}

std::int64_t ShardedModel::bytes_sent_between_replicas() {
  return impl_->gradients->bytes_sent_between_replicas();
}

}  // namespace trireme
