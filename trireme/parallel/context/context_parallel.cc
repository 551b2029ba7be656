// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/context/context_parallel.h"

#include <ATen/TensorOperators.h>
#include <fmt/ranges.h>

#include <cstdint>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/loss.h"
#include "trireme/parallel/context/head_exchange.h"
#include "trireme/parallel/context/ring_attention.h"
#include "trireme/parallel/context/token_parts.h"
#include "trireme/parallel/context/ulysses_attention.h"

namespace trireme {
namespace {

using AttentionAcrossRanks = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                            std::int64_t, const ops::AttentionMask&, Group&);

AttentionAcrossRanks attention_of(const std::string& method) {
  if (method == "ring") return ring_attention;
  if (method == "ulysses") return ulysses_attention;
  throw_error<ConfigError>("no method {} of context parallelism: ring or ulysses", method);
}

// What the model's attention sees, which may outlive the ContextParallel.
struct Sequence {
  std::unique_ptr<Group> group;
  std::int64_t tokens = 0;  // of the whole one; 0: none was cut yet
};

void check_same(const at::Tensor& values, const at::Tensor& tokens_BT, const char* what) {
  if (values.sizes() == tokens_BT.sizes() && values.scalar_type() == at::kLong) return;
  throw_error<ShapeError>("{} of a batch to be cut must be i64 [{}] as the tokens; got {} [{}]",
                          what, fmt::join(tokens_BT.sizes(), ", "),
                          c10::toString(values.scalar_type()), fmt::join(values.sizes(), ", "));
}

double counted(const at::Tensor& targets) {
  return targets.ne(ops::kIgnoredTarget).sum().item<double>();
}

}  // namespace

struct ContextParallel::Impl {
  Impl(nn::TransformerImpl& m, Group& cp, const ContextParallelOptions& options)
      : model(m), sequence(std::make_shared<Sequence>()) {
    const AttentionAcrossRanks attention = attention_of(options.method);
    if (options.method == "ulysses") {
      // Of this rank's part, where tensor parallelism has cut the model.
      const std::int64_t D = model.config().head_width();
      for (const auto& item : model.named_parameters()) {
        if (!item.key().ends_with("attn.k.weight")) continue;
        const at::Tensor q =
            model.named_parameters()[item.key().substr(0, item.key().size() - 8) + "q.weight"];
        detail::cut_heads(q.size(0) / D, item.value().size(0) / D, cp.size());
      }
    }
    sequence->group = cp.duplicate("context");
    if (cp.size() == 1) return;
    set_core([attention, s = sequence](const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const ops::AttentionMask& mask) {
      return attention(q, k, v, s->tokens, mask, *s->group);
    });
  }
  ~Impl() {
    if (sequence->group->size() == 1) return;
    set_core({});
    model.set_positions({});
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void set_core(const nn::AttentionCore& core) {
    for (const auto& module : model.modules()) {
      if (auto* attention = module->as<nn::AttentionImpl>()) attention->set_core(core);
    }
  }

  TokenParts parts(std::int64_t tokens) const {
    const int n = sequence->group->size();
    if (tokens < 2 * n) {
      throw_error<ConfigError>(
          "sequences of {} tokens cut across {} ranks: at least {} tokens, two for each rank",
          tokens, n, 2 * n);
    }
    // On all ranks, though one has the last tokens.
    if (model.config().is_gpt2() && tokens > model.config().context) {
      throw_error<ShapeError>(
          "{} tokens exceed model.context {}, for which the model has learned positions", tokens,
          model.config().context);
    }
    return token_parts(tokens, sequence->group->rank(), n);
  }

  // The passes that follow are of such sequences.
  void begin(std::int64_t tokens, const TokenParts& parts) {
    if (sequence->group->size() == 1 || sequence->tokens == tokens) return;
    model.set_positions(token_positions(parts));
    sequence->tokens = tokens;
  }

  nn::TransformerImpl& model;
  std::shared_ptr<Sequence> sequence;
};

ContextParallel::ContextParallel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ContextParallel::~ContextParallel() = default;
ContextParallel::ContextParallel(ContextParallel&&) noexcept = default;
ContextParallel& ContextParallel::operator=(ContextParallel&&) noexcept = default;

Group& ContextParallel::group() const { return *impl_->sequence->group; }

ContextBatch ContextParallel::cut(const at::Tensor& tokens_BT, const at::Tensor& targets_BT,
                                  const at::Tensor& document_starts_BT) {
  if (tokens_BT.dim() != 2 || tokens_BT.scalar_type() != at::kLong) {
    throw_error<ShapeError>("tokens of a batch to be cut must be i64 [B, T]; got {} [{}]",
                            c10::toString(tokens_BT.scalar_type()),
                            fmt::join(tokens_BT.sizes(), ", "));
  }
  if (targets_BT.defined()) check_same(targets_BT, tokens_BT, "targets");
  if (document_starts_BT.defined()) check_same(document_starts_BT, tokens_BT, "document starts");
  const TokenParts parts = impl_->parts(tokens_BT.size(1));
  impl_->begin(tokens_BT.size(1), parts);
  const auto own = [&](const at::Tensor& values) {
    return values.defined() ? own_tokens(values, 1, parts) : values;
  };
  ContextBatch batch{own(tokens_BT), own(targets_BT), own(document_starts_BT)};
  if (targets_BT.defined()) {
    const double whole = counted(targets_BT);
    batch.weight = whole == 0 ? 0 : counted(batch.targets_BT) / whole;
  }
  return batch;
}

ContextParallel context_parallel(nn::TransformerImpl& model, Group& cp,
                                 const ContextParallelOptions& options) {
  return ContextParallel(std::make_unique<ContextParallel::Impl>(model, cp, options));
}

}  // namespace trireme
