// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <fmt/ranges.h>

#include <string>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/ops/checkpoint.h"

namespace trireme::nn {
namespace {

void check_tokens(const at::Tensor& tokens, const char* what) {
  if (tokens.dim() != 2 || tokens.scalar_type() != at::kLong || tokens.numel() == 0) {
    throw_error<ShapeError>("{} must be i64 [sequences, tokens] and not empty; got {} [{}]", what,
                            c10::toString(tokens.scalar_type()), fmt::join(tokens.sizes(), ", "));
  }
}

void check_learned_positions(std::int64_t end, std::int64_t context) {
  if (end <= context) return;
  throw_error<ShapeError>(
      "{} tokens exceed model.context {}, for which the model has learned positions", end, context);
}

// Children by the numbers that they have in the whole model.
class Blocks : public torch::nn::Module {
 public:
  void add(std::int64_t layer, const Block& block) {
    register_module(std::to_string(layer), block);
  }
};

// What the next norm would add first.
at::Tensor added(const ResidualStream& stream) {
  return stream.change_BTC.defined() ? stream.x_BTC + stream.change_BTC : stream.x_BTC;
}

TransformerPart checked(TransformerPart part, const ModelConfig& config) {
  if (part.end < 0) part.end = config.layers;
  if (part.begin < 0 || part.begin > part.end || part.end > config.layers) {
    throw_error<ShapeError>("blocks {} to {} are no part of a model of {}", part.begin, part.end,
                            config.layers);
  }
  return part;
}

}  // namespace

BlockImpl::BlockImpl(const ModelConfig& config, std::int64_t layer) : layer_(layer) {
  attn_norm_ = register_module("attn_norm", Norm(config));
  attn_ = register_module("attn", Attention(config));
  attn_dropout_ = register_module("attn_dropout", Dropout());
  mlp_norm_ = register_module("mlp_norm", Norm(config));
  if (config.experts.in_layer(layer)) {
    mixture_ = register_module("mlp", MixtureOfExperts(config));
  } else {
    mlp_ = register_module("mlp", Mlp(config));
  }
  mlp_dropout_ = register_module("mlp_dropout", Dropout());
}

BlockOutput BlockImpl::forward(ResidualStream stream, const TokenContext& context,
                               std::size_t in_cache) {
  // Of dropout: 0 is the embeddings'.
  const auto place = static_cast<std::uint32_t>(2 * layer_ + 1);
  stream.change_BTC =
      attn_dropout_(attn_(attn_norm_->forward(stream), context, in_cache), context.dropout, place);
  const at::Tensor x_BTC = mlp_norm_->forward(stream);
  MixtureOutput mixed;
  if (mixture_.is_empty()) {
    mixed.y = mlp_(x_BTC);
  } else {
    mixed = mixture_(x_BTC);
  }
  stream.change_BTC = mlp_dropout_(mixed.y, context.dropout, place + 1);
  return {std::move(stream), std::move(mixed.routing)};
}

void BlockImpl::set_hidden_values(ops::HiddenValues hidden) {
  mixture_.is_empty() ? mlp_->set_hidden_values(hidden) : mixture_->set_hidden_values(hidden);
}

TransformerImpl::TransformerImpl(const ModelConfig& config, const TransformerPart& part)
    : config_(config), part_(checked(part, config)) {
  if (part_.embedding || (part_.head && config.tied())) {
    token_embedding_ =
        register_module("token_embedding", Embedding(config.vocab_size, config.width));
  }
  if (part_.embedding && config.is_gpt2()) {
    position_embedding_ =
        register_module("position_embedding", Embedding(config.context, config.width));
  }
  if (part_.embedding) embedding_dropout_ = register_module("embedding_dropout", Dropout());
  const auto blocks = register_module("blocks", std::make_shared<Blocks>());
  for (std::int64_t layer = part_.begin; layer < part_.end; ++layer) {
    blocks_.emplace_back(config, layer);
    blocks->add(layer, blocks_.back());
  }
  if (!part_.head) return;
  final_norm_ = register_module("final_norm", Norm(config));
  head_ = register_module("head", config.tied()
                                      ? Linear(token_embedding_->weight())
                                      : Linear(config.width, config.vocab_size,
                                               LinearOptions{.role = ParameterRole::kEmbedding}));
}

bool TransformerImpl::is_whole() const {
  return part_.embedding && part_.head && part_.begin == 0 && part_.end == config_.layers;
}

at::Tensor TransformerImpl::token_embedding_weight() const {
  return token_embedding_.is_empty() ? at::Tensor() : token_embedding_->weight();
}

at::Tensor TransformerImpl::embed(const at::Tensor& tokens_BT, std::int64_t position) {
  if (position_embedding_.is_empty()) return token_embedding_(tokens_BT);
  const std::int64_t end = position + tokens_BT.size(1);
  check_learned_positions(end, config_.context);
  if (position_embedding_->has_hooks()) {
    const at::Tensor ids = at::arange(position, end, tokens_BT.options()).expand_as(tokens_BT);
    return token_embedding_(tokens_BT) + position_embedding_(ids);
  }
  // The whole table as it is: its gradient is then added in place.
  const at::Tensor& table = position_embedding_->weight();
  const bool whole = tokens_BT.size(1) == config_.context;
  return token_embedding_(tokens_BT, whole ? table : table.narrow(0, position, tokens_BT.size(1)));
}

// A sample has fewer tokens than 2^24.
DropoutRows TransformerImpl::dropout_rows(const Shape& shape) const {
  constexpr std::int64_t kTokens = std::int64_t{1} << 24;
  if (dropout_.share == 0 || first_sample_ < 0) return {};
  const at::TensorOptions numbers(at::kLong);
  const at::Tensor samples =
      at::arange(first_sample_, first_sample_ + shape.sequences, numbers) * kTokens;
  return {dropout_,
          samples.unsqueeze(1) +
              (positions_T_.defined() ? positions_T_ : at::arange(shape.tokens, numbers))};
}

at::Tensor TransformerImpl::embed(const at::Tensor& tokens_BT, const at::Tensor& positions_T) {
  if (position_embedding_.is_empty()) return token_embedding_(tokens_BT);
  if (position_embedding_->has_hooks()) {
    return token_embedding_(tokens_BT) + position_embedding_(positions_T.expand_as(tokens_BT));
  }
  return token_embedding_(tokens_BT, position_embedding_(positions_T));
}

void TransformerImpl::set_positions(const at::Tensor& positions_T) {
  if (positions_T.defined()) {
    if (positions_T.dim() != 1 || positions_T.scalar_type() != at::kLong ||
        positions_T.numel() == 0 || positions_T.min().item<std::int64_t>() < 0) {
      throw_error<ShapeError>("positions of tokens must be i64 [T], none below 0; got {} [{}]",
                              c10::toString(positions_T.scalar_type()),
                              fmt::join(positions_T.sizes(), ", "));
    }
    if (!position_embedding_.is_empty()) {
      check_learned_positions(positions_T.max().item<std::int64_t>() + 1, config_.context);
    }
  }
  positions_T_ = positions_T;
}

void TransformerImpl::set_recompute(Recompute recompute) {
  recompute_ = recompute;
  for (Block& block : blocks_) {
    block->set_hidden_values(recompute == Recompute::kActivations
                                 ? ops::HiddenValues::kComputedAgain
                                 : ops::HiddenValues::kKept);
  }
}

std::vector<const torch::nn::Module*> TransformerImpl::blocks() const {
  std::vector<const torch::nn::Module*> result;
  for (const Block& block : blocks_) result.push_back(block.get());
  return result;
}

std::vector<MixtureOfExpertsImpl*> TransformerImpl::mixtures() const {
  std::vector<MixtureOfExpertsImpl*> result;
  for (const Block& block : blocks_) {
    if (block->mixture() != nullptr) result.push_back(block->mixture());
  }
  return result;
}

BlockOutput TransformerImpl::run_block(std::size_t index, ResidualStream stream,
                                       const TokenContext& context) {
  const bool checkpointed =
      recompute_ == Recompute::kBlocks && context.cache == nullptr && at::GradMode::is_enabled();
  if (!checkpointed && !block_runner_) {
    return blocks_[index]->forward(std::move(stream), context, index);
  }
  std::vector<at::Tensor> inputs{stream.x_BTC};
  if (stream.change_BTC.defined()) inputs.push_back(stream.change_BTC);
  const bool mixed = blocks_[index]->mixture() != nullptr;
  const auto segment = [block = blocks_[index].ptr(), context, index,
                        mixed](const std::vector<at::Tensor>& in) {
    const ResidualStream before{in[0], in.size() > 1 ? in[1] : at::Tensor()};
    const auto [after, routing] = block->forward(before, context, index);
    std::vector<at::Tensor> out{after.x_BTC, after.change_BTC};
    if (mixed) out.insert(out.end(), {routing.losses, routing.chosen_E, routing.dropped_E});
    return out;
  };
  const auto compute = [&](const std::vector<at::Tensor>& in) {
    return checkpointed ? ops::checkpoint(segment, in) : segment(in);
  };
  const std::vector<at::Tensor> out =
      block_runner_ ? block_runner_(*blocks_[index], inputs, compute) : compute(inputs);
  return {{out[0], out[1]}, mixed ? LayerRouting{out[2], out[3], out[4]} : LayerRouting()};
}

TransformerImpl::Shape TransformerImpl::shape_of(const at::Tensor& tokens) const {
  if (part_.embedding) {
    check_tokens(tokens, "tokens");
    return {tokens.size(0), tokens.size(1)};
  }
  if (shape_.sequences > 0) return shape_;
  if (tokens.dim() != 3 || !tokens.is_floating_point() || tokens.size(2) != config_.width) {
    throw_error<ShapeError>(
        "a part without the embedding takes hidden values [sequences, tokens, {}]; got {} [{}]",
        config_.width, c10::toString(tokens.scalar_type()), fmt::join(tokens.sizes(), ", "));
  }
  return {tokens.size(0), tokens.size(1)};
}

at::Tensor TransformerImpl::first_values(const at::Tensor& tokens, const TokenContext& context,
                                         const Shape& shape, std::int64_t position, bool placed) {
  if (placed && positions_T_.size(0) != shape.tokens) {
    throw_error<ShapeError>("{} tokens for a model with {} positions set", shape.tokens,
                            positions_T_.size(0));
  }
  if (!part_.embedding) return tokens;
  const at::Tensor embedded = placed ? embed(tokens, positions_T_) : embed(tokens, position);
  return embedding_dropout_(embedded, context.dropout, 0);
}

TransformerImpl::Trunk TransformerImpl::trunk(const at::Tensor& tokens,
                                              const at::Tensor& document_starts_BT,
                                              KvCache* cache) {
  const Shape shape = shape_of(tokens);
  const bool placed = cache == nullptr && positions_T_.defined();
  const std::int64_t position = cache == nullptr ? 0 : cache->tokens;
  TokenContext context{.sequences = shape.sequences,
                       .tokens = shape.tokens,
                       .document_starts_BT = document_starts_BT,
                       .cache = cache,
                       .dropout = dropout_rows(shape)};
  Trunk trunk{{first_values(tokens, context, shape, position, placed), {}}, {}};
  if (!config_.is_gpt2()) {
    const auto width = config_.head_width();
    const auto options = trunk.stream.x_BTC.options();
    context.rotary =
        placed ? ops::rotary_table(positions_T_, width, config_.rope_theta, options)
               : ops::rotary_table(position, shape.tokens, width, config_.rope_theta, options);
  }
  for (std::size_t index = 0; index < blocks_.size(); ++index) {
    BlockOutput output = run_block(index, std::move(trunk.stream), context);
    trunk.stream = std::move(output.stream);
    if (output.routing.losses.defined()) trunk.routing.push_back(std::move(output.routing));
  }
  keep_routing(trunk.routing);
  return trunk;
}

void TransformerImpl::keep_routing(const std::vector<LayerRouting>& routing) {
  routing_.clear();
  for (const LayerRouting& layer : routing) {
    routing_.push_back({layer.losses.detach(), layer.chosen_E, layer.dropped_E});
  }
}

// Undefined: nothing to add.
at::Tensor TransformerImpl::routing_loss(const std::vector<LayerRouting>& routing) const {
  const ExpertsConfig& experts = config_.experts;
  const double balance = experts.balance == "loss" ? experts.balance_coefficient : 0.0;
  at::Tensor loss;
  if (!at::GradMode::is_enabled() || routing.empty()) return loss;
  // Of the whole model.
  const auto layers = static_cast<double>(experts.num_layers(config_.layers));
  const auto add = [&](double coefficient, int which) {
    if (coefficient == 0.0) return;
    for (const LayerRouting& layer : routing) {
      const at::Tensor part = layer.losses[which] * (coefficient / layers);
      loss = loss.defined() ? loss + part : part;
    }
  };
  add(balance, 0);
  add(experts.z_coefficient, 1);
  return loss;
}

at::Tensor TransformerImpl::forward(const at::Tensor& tokens_BT,
                                    const at::Tensor& document_starts_BT) {
  Trunk trunk = this->trunk(tokens_BT, document_starts_BT, nullptr);
  const Shape shape = shape_of(tokens_BT);
  return head_(final_norm_->forward(trunk.stream)).view({shape.sequences, shape.tokens, -1});
}

at::Tensor TransformerImpl::loss(const at::Tensor& tokens_BT, const at::Tensor& targets_BT,
                                 const at::Tensor& document_starts_BT) {
  check_tokens(targets_BT, "targets");
  const Shape shape = shape_of(tokens_BT);
  if (targets_BT.size(0) != shape.sequences || targets_BT.size(1) != shape.tokens) {
    throw_error<ShapeError>("targets [{}] must have the shape of the tokens [{}, {}]",
                            fmt::join(targets_BT.sizes(), ", "), shape.sequences, shape.tokens);
  }
  Trunk trunk = this->trunk(tokens_BT, document_starts_BT, nullptr);
  const at::Tensor loss = head_->cross_entropy(final_norm_->forward(trunk.stream), targets_BT);
  const at::Tensor more = routing_loss(trunk.routing);
  return more.defined() ? loss + more : loss;
}

PartOutput TransformerImpl::hidden(const at::Tensor& tokens_BT,
                                   const at::Tensor& document_starts_BT) {
  const Trunk trunk = this->trunk(tokens_BT, document_starts_BT, nullptr);
  return {added(trunk.stream), routing_loss(trunk.routing)};
}

at::Tensor TransformerImpl::decode(const at::Tensor& tokens_BT, KvCache& cache) {
  const at::NoGradGuard no_grad;
  const Shape shape = shape_of(tokens_BT);
  ResidualStream stream = trunk(tokens_BT, {}, &cache).stream;
  if (!part_.head) {
    cache.tokens += shape.tokens;
    return added(stream);
  }
  const at::Tensor hidden_BTC =
      head_->input(final_norm_->forward(stream)).view({shape.sequences, shape.tokens, -1});
  cache.tokens += shape.tokens;
  return head_->finish(head_->product(hidden_BTC.select(1, shape.tokens - 1))).to(at::kFloat);
}

}  // namespace trireme::nn
