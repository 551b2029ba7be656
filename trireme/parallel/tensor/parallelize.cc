// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/tensor/parallelize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/nn/dropout.h"
#include "trireme/nn/mlp.h"
#include "trireme/ops/embedding.h"
#include "trireme/parallel/tensor/activation_exchange.h"
#include "trireme/parallel/tensor/row_chunks.h"
#include "trireme/parallel/tensor/token_rows.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

using detail::TokenRows;

struct NamedLayer {
  std::string name;
  nn::Layer* layer = nullptr;
};

void collect_layers(torch::nn::Module& module, const std::string& name,
                    std::vector<NamedLayer>& layers) {
  if (auto* layer = dynamic_cast<nn::Layer*>(&module)) layers.push_back({name, layer});
  for (const auto& child : module.named_children()) {
    collect_layers(*child.value(), name.empty() ? child.key() : name + "." + child.key(), layers);
  }
}

// What happens to one layer.
struct LayerCut {
  std::string name;
  nn::Layer* layer = nullptr;
  const TensorRule* rule = nullptr;
  nn::LinearImpl* linear = nullptr;
  nn::EmbeddingImpl* embedding = nullptr;
  std::int64_t whole = 0;    // of the dim that is cut
  DimPart part = {};         // of it
  std::int64_t largest = 0;  // of all ranks
  bool tied = false;         // the weight is another layer's, which cuts it

  bool is_cut() const { return rule->cut != TensorCut::kTokens; }
  int dim() const { return rule->cut == TensorCut::kInputs ? 1 : 0; }
};

const char* kind_of(TensorCut cut) {
  switch (cut) {
    case TensorCut::kOutputs:
      return "outputs";
    case TensorCut::kInputs:
      return "inputs";
    case TensorCut::kVocabulary:
      return "its vocabulary";
    case TensorCut::kTokens:
      return "tokens";
  }
  return "";
}

const TensorRule& rule_for(const std::string& name, const TensorPlan& plan,
                           std::set<const TensorRule*>& used) {
  for (const TensorRule& rule : plan) {
    if (!matches_pattern(rule.pattern, name)) continue;
    used.insert(&rule);
    return rule;
  }
  throw_error<ConfigError>(
      "no rule of the tensor-parallel plan names the layer {}: add one, TensorCut::kTokens where "
      "it "
      "stays whole",
      name);
}

LayerCut cut_of(const NamedLayer& named, const TensorRule& rule, const Group& group) {
  LayerCut cut{.name = named.name,
               .layer = named.layer,
               .rule = &rule,
               .linear = dynamic_cast<nn::LinearImpl*>(named.layer),
               .embedding = dynamic_cast<nn::EmbeddingImpl*>(named.layer)};
  const bool fits = !cut.is_cut() || cut.linear != nullptr ||
                    (cut.embedding != nullptr && rule.cut == TensorCut::kVocabulary);
  if (!fits) {
    throw_error<ConfigError>("the tensor-parallel plan cuts {} by {}, which a {} does not have",
                             named.name, kind_of(rule.cut), named.layer->name());
  }
  if (!cut.is_cut()) return cut;
  const at::Tensor& weight = cut.linear != nullptr ? cut.linear->weight() : cut.embedding->weight();
  cut.tied = named.layer->named_parameters(/*recurse=*/false).is_empty();
  cut.whole = weight.size(cut.dim());
  for (int rank = 0; rank < group.size(); ++rank) {
    const DimPart part = dim_part(rule, named.name, cut.whole, rank, group.size());
    cut.largest = std::max(cut.largest, part.end - part.begin);
    if (rank == group.rank()) cut.part = part;
  }
  if (rule.cut == TensorCut::kVocabulary && cut.linear != nullptr && cut.linear->bias().defined()) {
    throw_error<ConfigError>(
        "the tensor-parallel plan cuts {} by its vocabulary, but it has a bias, which logits of a "
        "cut "
        "vocabulary have not",
        named.name);
  }
  return cut;
}

std::vector<LayerCut> plan_cuts(torch::nn::Module& model, const TensorPlan& plan,
                                const Group& group) {
  std::vector<NamedLayer> layers;
  collect_layers(model, "", layers);
  std::set<const TensorRule*> used;
  std::vector<LayerCut> cuts;
  for (const NamedLayer& named : layers) {
    cuts.push_back(cut_of(named, rule_for(named.name, plan, used), group));
  }
  for (const TensorRule& rule : plan) {
    if (used.contains(&rule)) continue;
    throw_error<ConfigError>("the rule {} of the tensor-parallel plan names no layer of the model",
                             rule.pattern);
  }
  return cuts;
}

// Outputs that are summed have one bias.
bool cuts_parameter(const LayerCut& cut, const std::string& parameter) {
  return cut.is_cut() && !(cut.rule->cut == TensorCut::kInputs && parameter == "bias");
}

void keep_parts(const LayerCut& cut) {
  if (!cut.is_cut() || cut.tied) return;
  const nn::ParameterPart part{.dim = cut.dim(),
                               .begin = cut.part.begin,
                               .size = cut.part.end - cut.part.begin,
                               .whole = cut.whole,
                               .largest = cut.largest};
  cut.layer->keep_part("weight", part);
  if (cut.linear != nullptr && cut.linear->bias().defined() && cuts_parameter(cut, "bias")) {
    cut.layer->keep_part("bias", part);
  }
}

std::string full_name(const LayerCut& cut, const std::string& parameter) {
  return cut.name.empty() ? parameter : cut.name + "." + parameter;
}

}  // namespace

struct TensorParallel::Impl {
  Impl(torch::nn::Module& model, Group& tp, const TensorPlan& plan,
       const TensorParallelOptions& options)
      : tokens(std::make_shared<TokenRows>(tp.duplicate("tensor"), options.sequence)) {
    if (options.chunks < 1) {
      throw_error<ConfigError>("{} chunks of rows between two exchanges: at least 1",
                               options.chunks);
    }
    const std::vector<LayerCut> cuts = plan_cuts(model, plan, tp);
    parts.group = &tokens->group();
    for (const LayerCut& cut : cuts) keep_parts(cut);
    if (tp.size() == 1) return;
    for (const LayerCut& cut : cuts) {
      set_hooks(cut);
      note_copies(cut);
    }
    if (options.chunks > 1) run_in_chunks(model, cuts, options.chunks);
  }

  // The MLPs, and the other matrices whose outputs are summed.
  void run_in_chunks(torch::nn::Module& model, const std::vector<LayerCut>& cuts, int count) {
    const auto chunks = std::make_shared<detail::RowChunks>(tokens, count);
    std::set<const nn::LinearImpl*> summed, in_mlps;
    for (const LayerCut& cut : cuts) {
      if (cut.rule->cut == TensorCut::kInputs) summed.insert(cut.linear);
    }
    model.apply([&](torch::nn::Module& module) {
      auto* mlp = dynamic_cast<nn::MlpImpl*>(&module);
      if (mlp == nullptr) return;
      bool is_cut = false;
      for (const auto& child : module.children()) {
        const auto* linear = dynamic_cast<const nn::LinearImpl*>(child.get());
        is_cut = is_cut || summed.contains(linear);
        in_mlps.insert(linear);
      }
      if (!is_cut) return;  // a plan may keep it whole
      mlp->set_rows_runner(
          [chunks](const auto& x, const auto& f) { return chunks->enter_and_leave(x, f); });
    });
    for (const LayerCut& cut : cuts) {
      if (cut.rule->cut != TensorCut::kInputs || in_mlps.contains(cut.linear)) continue;
      cut.linear->set_rows_runner(
          [chunks](const auto& x, const auto& f) { return chunks->leave(x, f); });
    }
  }

  void set_hooks(const LayerCut& cut) {
    const auto rows = tokens;
    const auto enter = [rows](const at::Tensor& x) { return rows->enter(x); };
    const auto leave = [rows](const at::Tensor& x) { return rows->leave(x); };
    switch (cut.rule->cut) {
      case TensorCut::kOutputs:
        return cut.linear->set_hooks(enter, {});
      case TensorCut::kInputs:
        return cut.linear->set_hooks({}, leave);
      case TensorCut::kVocabulary:
        return cut.linear != nullptr ? set_head_hooks(cut) : set_lookup_hooks(cut);
      case TensorCut::kTokens:
        if (!tokens->sequence()) return;
        const auto own = [rows](const at::Tensor& ids) { return rows->own(ids); };
        if (cut.embedding != nullptr) cut.embedding->set_hooks(own, {});
        if (auto* dropout = dynamic_cast<nn::DropoutImpl*>(cut.layer)) dropout->set_rows_hook(own);
    }
  }

  void set_lookup_hooks(const LayerCut& cut) {
    const auto rows = tokens;
    const auto local = [rows, part = cut.part, whole = cut.whole](const at::Tensor& ids) {
      rows->begin_pass(ids.numel());
      return detail::rows_here(ids, part, whole);
    };
    cut.embedding->set_hooks(local, [rows](const at::Tensor& x) { return rows->leave(x); });
  }

  void set_head_hooks(const LayerCut& cut) {
    const auto rows = tokens;
    Group* group = &tokens->group();
    cut.linear->set_hooks([rows](const at::Tensor& x) { return rows->enter_last(x); },
                          [group, whole = cut.whole](const at::Tensor& logits) {
                            return detail::gather_columns(logits, whole, *group);
                          });
    cut.linear->set_vocabulary(
        {.first = cut.part.begin, .size = cut.whole, .gather = [group](const at::Tensor& own) {
           std::vector<std::int64_t> shape = own.sizes().vec();
           shape.insert(shape.begin(), group->size());
           const at::Tensor all = at::empty(shape, own.options());
           group->all_gather(buffer_of_tensor(own), buffer_of_tensor(all));
           return all;
         }});
  }

  // Parameters that this rank does not have alone.
  void note_copies(const LayerCut& cut) {
    if (cut.tied) return;
    for (const auto& item : cut.layer->named_parameters(/*recurse=*/false)) {
      const std::string name = full_name(cut, item.key());
      if (!cuts_parameter(cut, item.key())) {
        if (tokens->sequence()) partial_over(0, tokens->group().size()).push_back(name);
        if (tokens->group().rank() != 0) parts.counted_elsewhere.push_back(name);
      } else if (cut.part.copies > 1) {
        partial_over(cut.part.first_rank, cut.part.copies).push_back(name);
        if (tokens->group().rank() != cut.part.first_rank) parts.counted_elsewhere.push_back(name);
      }
    }
  }

  // The names that are partial over ranks [first, first + count).
  std::vector<std::string>& partial_over(int first, int count) {
    Group* group = &tokens->group();
    if (count < group->size()) {
      if (!shared_heads) {
        std::vector<int> ranks(static_cast<std::size_t>(count));
        std::iota(ranks.begin(), ranks.end(), first);
        shared_heads = group->split("kv heads", ranks);
      }
      group = shared_heads.get();
    }
    for (PartialGradients& partial : parts.partial) {
      if (partial.group == group) return partial.parameters;
    }
    parts.partial.push_back({group, {}});
    return parts.partial.back().parameters;
  }

  std::shared_ptr<TokenRows> tokens;    // the layers' hooks have it, too
  std::unique_ptr<Group> shared_heads;  // ranks with this one's kv head
  ModelParts parts;
};

TensorParallel::TensorParallel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TensorParallel::~TensorParallel() = default;
TensorParallel::TensorParallel(TensorParallel&&) noexcept = default;
TensorParallel& TensorParallel::operator=(TensorParallel&&) noexcept = default;

Group& TensorParallel::group() const { return impl_->tokens->group(); }
bool TensorParallel::sequence() const { return impl_->tokens->sequence(); }
void TensorParallel::begin_pass(std::int64_t rows) { impl_->tokens->begin_pass(rows); }
const ModelParts& TensorParallel::parts() const { return impl_->parts; }

TensorParallel parallelize(nn::TransformerImpl& model, Group& tp,
                           const TensorParallelOptions& options) {
  if (options.sequence && !model.mixtures().empty()) {
    throw_error<ConfigError>(
        "sequence parallelism of a model with experts: these choose among all tokens of a "
        "micro-batch, of which a rank would have its part; leave it out");
  }
  TensorPlan plan = tensor_plan(model.config());
  if (!model.is_whole()) {
    std::vector<NamedLayer> layers;
    collect_layers(model, "", layers);
    std::erase_if(plan, [&](const TensorRule& rule) {
      return std::ranges::none_of(layers, [&](const NamedLayer& layer) {
        return matches_pattern(rule.pattern, layer.name);
      });
    });
  }
  return parallelize(model, tp, plan, options);
}

TensorParallel parallelize(torch::nn::Module& model, Group& tp, const TensorPlan& plan,
                           const TensorParallelOptions& options) {
  return TensorParallel(std::make_unique<TensorParallel::Impl>(model, tp, plan, options));
}

}  // namespace trireme
