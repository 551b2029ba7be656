// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/data/replica.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <torch/nn/module.h>

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/gradient_reducer.h"
#include "trireme/parallel/model_agreement.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

at::ScalarType dtype_of(const torch::nn::Module& module) {
  for (const at::Tensor& parameter : module.parameters()) {
    if (parameter.requires_grad()) return parameter.scalar_type();
  }
  return at::kFloat;
}

struct DescribeCodec {
  std::string operator()(const Bf16Compression&) const { return "bf16"; }
  std::string operator()(const Int8Compression&) const { return "int8"; }
  std::string operator()(const TopKCompression& topk) const {
    return fmt::format("topk fraction {} bf16_values {}", topk.fraction, topk.bf16_values);
  }
  std::string operator()(const LowRankCompression& lowrank) const {
    return fmt::format("lowrank components {} rows {} seed {}", lowrank.components, lowrank.rows,
                       lowrank.seed);
  }
};

std::string describe(const std::optional<CompressionOptions>& compression) {
  if (!compression) return "compression none";
  return fmt::format("compression {} error_feedback {}",
                     std::visit(DescribeCodec{}, compression->codec), compression->error_feedback);
}

// One line for each.
std::vector<std::string> describe(const ReplicaOptions& options, int ranks) {
  return {
      fmt::format("micro_batches {}", options.micro_batches == 0 ? ranks : options.micro_batches),
      fmt::format("bucket_bytes {}", options.bucket_bytes), describe(options.compression),
      fmt::format("broadcast_buffers {}", options.broadcast_buffers)};
}

ReducerOptions reducer_options(const ReplicaOptions& options) {
  ReducerOptions result{.micro_batches = options.micro_batches,
                        .bucket_bytes = options.bucket_bytes};
  if (!options.compression) result.exchange_rows = all_reduce_rows;
  return result;
}

std::span<float> values_of(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

}  // namespace

struct Replica::Impl {
  Impl(torch::nn::Module& module_in, Group& group_in, const ReplicaOptions& options_in)
      : module(module_in),
        group(group_in.duplicate("replica")),
        options(options_in),
        flat(agreed(module, *group, options), dtype_of(module), {.group = group.get()}),
        reducer(flat, *group, reducer_options(options),
                [this](Group& wire, std::size_t bucket, const at::Tensor& gradients) {
                  exchange(wire, bucket, gradients);
                }) {
    if (!flat.grad().is_cpu()) {
      throw_error<ConfigError>(
          "the parameters lie on {}, and replicas sum their gradients in host memory: move the "
          "module to the CPU, or train it as a ShardedModel with offload",
          flat.grad().device().str());
    }
    if (options.compression && flat.grad().scalar_type() != at::kFloat) {
      throw_error<ConfigError>("gradients of {} do not travel encoded: leave compression out",
                               c10::toString(flat.grad().scalar_type()));
    }
    codecs.resize(reducer.buckets().size());
    broadcast_model(*group, module);
  }

  static torch::nn::Module& agreed(torch::nn::Module& module, Group& group,
                                   const ReplicaOptions& options) {
    check_same_lines(group, "options", describe(options, group.size()));
    check_same_model(group, module);
    return module;
  }

  // On the communication thread.
  void exchange(Group& wire, std::size_t bucket, const at::Tensor& gradients) {
    if (!options.compression) return wire.all_reduce(buffer_of_tensor(gradients));
    auto& codec = codecs[bucket];
    if (!codec) codec = make_compressed_all_reduce(wire, gradients.numel(), *options.compression);
    codec->all_reduce(values_of(gradients));
  }

  void take_mean() {
    const at::NoGradGuard no_grad;
    const double weight = reducer.report().weight;
    if (!(weight > 0)) {
      throw_error<Error>(
          "no rank had data in this step (weights add up to {}): end the loop when any_has_data() "
          "says so",
          weight);
    }
    if (weight != 1) flat.grad().mul_(1 / weight);
  }

  // Not used by anyone: no gradient, rather than one of zeros.
  void drop_unused() {
    for (const std::size_t entry : reducer.unused()) {
      flat.layout().parameters[entry].mutable_grad().reset();
      if (!std::exchange(told_unused, true)) {
        log_warn("parameter {} had no gradient on any rank; the report names all such",
                 flat.entries()[entry].name);
      }
    }
  }

  torch::nn::Module& module;
  std::unique_ptr<Group> group;
  ReplicaOptions options;
  FlatParameters flat;
  std::vector<std::unique_ptr<CompressedAllReduce>> codecs;  // the communication thread's
  GradientReducer reducer;
  bool told_unused = false;
};

Replica::Replica(torch::nn::Module& module, Group& group, const ReplicaOptions& options)
    : impl_(std::make_unique<Impl>(module, group, options)) {}
Replica::~Replica() = default;
Replica::Replica(Replica&&) noexcept = default;
Replica& Replica::operator=(Replica&&) noexcept = default;

const std::vector<std::int64_t>& Replica::micro_batches() const {
  return impl_->reducer.micro_batches();
}

void Replica::backward(const at::Tensor& loss, double weight) {
  impl_->reducer.backward(loss, weight);
}

void Replica::add(double weight, const std::function<void()>& f) { impl_->reducer.add(weight, f); }

void Replica::finish_gradients() {
  impl_->reducer.finish();
  if (impl_->options.compression) impl_->flat.clear_gaps();
  impl_->take_mean();
  impl_->drop_unused();
  if (impl_->options.broadcast_buffers) broadcast_module_buffers(*impl_->group, impl_->module);
}

bool Replica::any_has_data(bool this_rank) {
  std::int64_t any = this_rank ? 1 : 0;
  impl_->group->all_reduce(buffer_of(std::span(&any, 1)), ReduceOp::kMax);
  return any != 0;
}

const StepReport& Replica::report() const { return impl_->reducer.report(); }
std::int64_t Replica::bytes_sent() { return impl_->reducer.bytes_sent(); }
std::size_t Replica::num_buckets() const { return impl_->reducer.buckets().size(); }
const FlatParameters& Replica::flat() const { return impl_->flat; }

Replica replicate(torch::nn::Module& module, Group& group, const ReplicaOptions& options) {
  return Replica(module, group, options);
}

}  // namespace trireme
