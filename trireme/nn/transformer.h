// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Transformer: GPT-2 and Llama-style language models as one plain torch module. No word of ranks.
//
//   nn::Transformer model(config);          // config.resolve() was called
//   nn::initialize(*model, seed);           // weights by (seed, parameter name, element index)
//   at::Tensor loss = model->loss(inputs_BT, targets_BT);  // mean over tokens
//   loss.backward();
//
// A part of the model, some of its blocks, computes what its rank of a pipeline has to:
//
//   nn::Transformer first(config, nn::TransformerPart{.end = 5, .head = false});
//   nn::Transformer last(config, nn::TransformerPart{.begin = 5, .embedding = false});
//   loss = last->loss(first->hidden(inputs_BT).hidden, targets_BT);
//
// Legend: B sequences, T tokens, C width, H heads, K kv heads, D head width, F MLP width, V
// vocabulary. Parameter names and shapes: docs/models.md.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "trireme/nn/attention.h"
#include "trireme/nn/dropout.h"
#include "trireme/nn/kv_cache.h"
#include "trireme/nn/linear.h"
#include "trireme/nn/mixture.h"
#include "trireme/nn/mlp.h"
#include "trireme/nn/model_config.h"
#include "trireme/nn/norm.h"
#include "trireme/nn/recompute.h"
#include "trireme/ops/rotary.h"

namespace trireme::nn {

// What a block makes of the stream before it. routing: its tensors are undefined without experts.
struct BlockOutput {
  ResidualStream stream;
  LayerRouting routing;
};

// x + attention(norm(x)), then x + mlp(norm(x)), whose place a mixture of experts may have, with
// dropout on what is added.
class BlockImpl : public torch::nn::Module {
 public:
  // Children attn_norm, attn, attn_dropout, mlp_norm, mlp, mlp_dropout. layer: the block's number
  // in the whole model.
  BlockImpl(const ModelConfig& config, std::int64_t layer);

  // The stream before the block -> after it; the other arguments as in AttentionImpl::forward.
  BlockOutput forward(ResidualStream stream, const TokenContext& context, std::size_t in_cache);

  void set_hidden_values(ops::HiddenValues hidden);
  // Null without experts.
  MixtureOfExpertsImpl* mixture() const {
    return mixture_.is_empty() ? nullptr : mixture_.ptr().get();
  }

 private:
  const std::int64_t layer_;
  Norm attn_norm_{nullptr};
  Attention attn_{nullptr};
  Dropout attn_dropout_{nullptr};
  Norm mlp_norm_{nullptr};
  Mlp mlp_{nullptr};  // or
  MixtureOfExperts mixture_{nullptr};
  Dropout mlp_dropout_{nullptr};
};
TORCH_MODULE(Block);

// Computes a block: f(inputs), where the block's parameters are used, and what it returns.
using BlockComputation =
    std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;
using BlockRunner = std::function<std::vector<at::Tensor>(const torch::nn::Module& block,
                                                          const std::vector<at::Tensor>& inputs,
                                                          const BlockComputation& f)>;

// Which of the model's layers are there: blocks [begin, end), and what stands before and after all
// blocks. Parameters have the names that they have in the whole model. Where the head's matrix is
// the embedding's, a part with the head alone has the matrix under the embedding's name.
struct TransformerPart {
  std::int64_t begin = 0;
  std::int64_t end = -1;  // -1: all
  bool embedding = true;
  bool head = true;  // and the norm before it
};

// What a part without the head returns. routing_loss: a part's share of what experts add to the
// loss (TransformerImpl::loss()); undefined where nothing is.
struct PartOutput {
  at::Tensor hidden;
  at::Tensor routing_loss;
};

class TransformerImpl : public torch::nn::Module {
 public:
  // Builds the parameters uninitialised (f32), or without memory (parameter_memory.h). Throws
  // ShapeError for a part that is none: blocks that the model does not have.
  explicit TransformerImpl(const ModelConfig& config, const TransformerPart& part = {});

  // In forward(), loss(), hidden() and decode() of a part without the embedding, what the part
  // before it returned, the hidden values, stands in the place of the tokens: [B, T, C], or rows in
  // whatever shape the embedding's output hook made them (set_shape()).

  // tokens_BT: i64 [B, T], T <= context with learned positions. document_starts_BT: where several
  // documents share a sequence (ops::document_starts()), a token sees its own alone; positions go
  // on through the sequence. Returns logits [B, T, V] in the parameters' dtype. Throws ShapeError;
  // c10::IndexError for a token outside the vocabulary.
  at::Tensor forward(const at::Tensor& tokens_BT, const at::Tensor& document_starts_BT = {});
  // Mean cross-entropy in nats per token, f32 scalar (f64 in a model of f64); the softmax is
  // computed in f32 whatever the parameters' dtype. Gradient: all parameters. With experts, and
  // where gradients are enabled, the means over their layers of the balance and the z loss are
  // added, times their coefficients (ExpertsConfig): of these tokens alone, the micro-batch, so
  // that they are the same whoever computes it.
  at::Tensor loss(const at::Tensor& tokens_BT, const at::Tensor& targets_BT,
                  const at::Tensor& document_starts_BT = {});
  // Of a part without the head: what the next part wants, [B, T, C] in the parameters' dtype.
  // Gradient: all parameters of the part, and the hidden values that it got.
  PartOutput hidden(const at::Tensor& tokens_BT, const at::Tensor& document_starts_BT = {});
  // As forward for tokens that follow those in the cache, which grows by T; returns the logits of
  // the last token only, [B, V] f32, or a part without the head its hidden values. No gradient.
  at::Tensor decode(const at::Tensor& tokens_BT, KvCache& cache);

  // Where the tokens of forward() and loss() stand in their sequences from now on: i64 [T], each at
  // least 0 and with learned positions below context; undefined: 0 .. T - 1. Each pass then has T
  // tokens. Throws ShapeError.
  void set_positions(const at::Tensor& positions_T);
  // Of a part without the embedding whose hidden values are not [B, T, C]: sequences and tokens of
  // the passes that begin from now on.
  void set_shape(std::int64_t sequences, std::int64_t tokens) { shape_ = {sequences, tokens}; }
  // What the last pass saw of the routing, by layer with experts; without graph. What is computed
  // again for a backward pass does not count.
  const std::vector<LayerRouting>& routing() const { return routing_; }
  // The mixtures of experts, in the order of the layers that have one.
  std::vector<MixtureOfExpertsImpl*> mixtures() const;

  // Of the passes that begin from now on, where gradients are enabled; kNone until it is called.
  void set_recompute(Recompute recompute);

  // Of the passes that begin from now on and are told which samples they are of.
  void set_dropout(const DropoutConfig& dropout) { dropout_ = dropout; }
  // The number of the first sequence of the passes that begin from now on, among all samples of a
  // training run, from which dropout is drawn; the others follow it. Negative, as it begins: no
  // training, and no dropout.
  void set_first_sample(std::int64_t number) { first_sample_ = number; }

  // The blocks, in the order in which they compute.
  std::vector<const torch::nn::Module*> blocks() const;
  // What stands around each block: it may bring the block's parameters and take them away again,
  // before and after f. Empty: nothing.
  void set_block_runner(BlockRunner runner) { block_runner_ = std::move(runner); }

  const ModelConfig& config() const { return config_; }
  const TransformerPart& part() const { return part_; }
  bool is_whole() const;
  // The head's, which is the embedding's where these are tied. Undefined in a part without the
  // head.
  at::Tensor head_weight() const { return head_.is_empty() ? at::Tensor() : head_->weight(); }
  // Undefined in a part without the embedding's matrix.
  at::Tensor token_embedding_weight() const;

 private:
  struct Shape {
    std::int64_t sequences = 0, tokens = 0;
  };
  Shape shape_of(const at::Tensor& tokens) const;
  // Before the first block.
  at::Tensor first_values(const at::Tensor& tokens, const TokenContext& context, const Shape& shape,
                          std::int64_t position, bool placed);
  // Embeddings and all blocks, up to the final norm. routing: of each layer with experts.
  struct Trunk {
    ResidualStream stream;
    std::vector<LayerRouting> routing;
  };
  Trunk trunk(const at::Tensor& tokens_BT, const at::Tensor& document_starts_BT, KvCache* cache);
  BlockOutput run_block(std::size_t index, ResidualStream stream, const TokenContext& context);
  at::Tensor routing_loss(const std::vector<LayerRouting>& routing) const;
  void keep_routing(const std::vector<LayerRouting>& routing);
  at::Tensor embed(const at::Tensor& tokens_BT, std::int64_t position);
  at::Tensor embed(const at::Tensor& tokens_BT, const at::Tensor& positions_T);
  DropoutRows dropout_rows(const Shape& shape) const;

  ModelConfig config_;
  TransformerPart part_;
  Shape shape_;  // as set_shape() has it
  Recompute recompute_ = Recompute::kNone;
  DropoutConfig dropout_;
  std::int64_t first_sample_ = -1;
  BlockRunner block_runner_;
  at::Tensor positions_T_;
  std::vector<LayerRouting> routing_;
  Embedding token_embedding_{nullptr};     // empty where the part has neither end that uses it
  Embedding position_embedding_{nullptr};  // empty with rotary positions
  Dropout embedding_dropout_{nullptr};
  std::vector<Block> blocks_;
  Norm final_norm_{nullptr};
  Linear head_{nullptr};
};
TORCH_MODULE(Transformer);

// Gives memory to parameters that have none and sets every parameter of the model from
// RandomStream(seed, parameter name): matrices and embeddings normal with deviation 0.02, the
// projections back into the residual stream (attn.out, mlp.down, of experts too) 0.02 / sqrt(2
// layers) (Radford et al. 2019, 2.3), norm weights 1, biases 0. Any dtype: the f32 value is
// rounded. Runs on at::get_num_threads() threads; the result does not depend on them.
void initialize(TransformerImpl& model, std::uint64_t seed);

}  // namespace trireme::nn
