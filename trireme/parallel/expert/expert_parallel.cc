// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/expert/expert_parallel.h"

#include <unordered_set>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/expert/row_exchange.h"

namespace trireme {
namespace {

void check(const nn::ModelConfig& config, int ranks) {
  if (config.experts.count == 0) {
    throw_error<ConfigError>(
        "a model without experts (model.experts.count is 0) cannot be spread over {} ranks of ep",
        ranks);
  }
  if (config.experts.count < ranks) {
    throw_error<ConfigError>(
        "{} experts cannot be spread over {} ranks of ep, each of which keeps at least one: at "
        "most {} ranks fit",
        config.experts.count, ranks, config.experts.count);
  }
}

using Tensors = std::unordered_set<const c10::TensorImpl*>;

// The experts of the layer that this rank has.
Tensors keep_experts(nn::ExpertsImpl& experts, std::int64_t count, const Group& ep) {
  const auto [begin, end] = experts_of_rank(count, ep.rank(), ep.size());
  Tensors kept;
  for (const auto& item : experts.named_parameters(/*recurse=*/false)) {
    if (ep.size() > 1) {
      experts.keep_part(item.key(), {.dim = 0,
                                     .begin = begin,
                                     .size = end - begin,
                                     .whole = count,
                                     .largest = (count + ep.size() - 1) / ep.size()});
    }
    kept.insert(item.value().unsafeGetTensorImpl());
  }
  return kept;
}

}  // namespace

std::pair<std::int64_t, std::int64_t> experts_of_rank(std::int64_t experts, int rank, int ranks) {
  return {experts * rank / ranks, experts * (rank + 1) / ranks};
}

struct ExpertParallel::Impl {
  Impl(nn::TransformerImpl& model, Group& ep) {
    check(model.config(), ep.size());
    group = ep.duplicate("experts");
    Tensors spread;
    for (nn::MixtureOfExpertsImpl* mixture : model.mixtures()) {
      spread.merge(keep_experts(mixture->experts(), model.config().experts.count, ep));
      if (ep.size() == 1) continue;
      mixture->set_exchange(
          [to = group](const at::Tensor& rows_MC, const std::vector<std::int64_t>& counts) {
            return detail::dispatch_rows(rows_MC, counts, *to);
          });
    }
    note_parts(model, spread, ep);
  }

  void note_parts(const nn::TransformerImpl& model, const Tensors& spread, Group& ep) {
    if (ep.size() == 1) return;
    PartialGradients everywhere{&ep, {}};
    for (const nn::RoledParameter& parameter : nn::parameters_with_roles(model)) {
      if (!spread.contains(parameter.tensor.unsafeGetTensorImpl())) {
        everywhere.parameters.push_back(parameter.name);
      }
    }
    parts.group = &ep;
    if (ep.rank() != 0) parts.counted_elsewhere = everywhere.parameters;
    parts.partial.push_back(std::move(everywhere));
  }

  std::shared_ptr<Group> group;  // the layers' exchanges have it, too
  ModelParts parts;
};

ExpertParallel::ExpertParallel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ExpertParallel::~ExpertParallel() = default;
ExpertParallel::ExpertParallel(ExpertParallel&&) noexcept = default;
ExpertParallel& ExpertParallel::operator=(ExpertParallel&&) noexcept = default;

const ModelParts& ExpertParallel::parts() const { return impl_->parts; }
std::int64_t ExpertParallel::bytes_sent() const { return impl_->group->bytes_sent(); }

ExpertParallel expert_parallel(nn::TransformerImpl& model, Group& ep) {
  return ExpertParallel(std::make_unique<ExpertParallel::Impl>(model, ep));
}

}  // namespace trireme
