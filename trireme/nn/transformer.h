// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Transformer: GPT-2 and Llama-style language models as one plain torch module. No word of ranks.
//
//   nn::Transformer model(config);                        // config.resolve() was called
//   nn::initialize(*model, seed);                         // weights by (seed, parameter name,
//   element index) at::Tensor loss = model->loss(inputs_BT, targets_BT); // mean over tokens
//   loss.backward();
//
// Legend: B sequences, T tokens, C width, H heads, K kv heads, D head width, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "trireme/nn/model_config.h"

namespace trireme::nn {

class BlockImpl;

// Keys and values of the tokens seen so far, for generation. One per sequence batch.
struct KvCache {
  // By layer, [B, K, tokens so far, D]; undefined before the first call.
  std::vector<at::Tensor> keys;
  std::vector<at::Tensor> values;
  std::int64_t tokens = 0;
};

class TransformerImpl : public torch::nn::Module {
 public:
  // Builds the parameters uninitialised (f32). Names: docs/models.md.
  explicit TransformerImpl(const ModelConfig& config);

  // tokens_BT: i64 [B, T], T <= context with learned positions. Returns logits [B, T, V] in the
  // parameters' dtype.
  at::Tensor forward(const at::Tensor& tokens_BT);
  // Mean cross-entropy in nats per token, f32 scalar; the softmax is computed in f32 whatever the
  // parameters' dtype. Gradient: all parameters.
  at::Tensor loss(const at::Tensor& tokens_BT, const at::Tensor& targets_BT);
  // As forward for tokens that follow those in the cache, which grows by T; returns the logits of
  // the last token only, [B, V] f32. No gradient.
  at::Tensor decode(const at::Tensor& tokens_BT, KvCache& cache);

  const ModelConfig& config() const { return config_; }

 private:
  at::Tensor embed(const at::Tensor& tokens_BT, std::int64_t position);
  at::Tensor head(const at::Tensor& x_BTC);

  ModelConfig config_;
  at::Tensor token_embedding_VC_;
  at::Tensor position_embedding_;  // undefined with rotary positions
  std::vector<std::shared_ptr<BlockImpl>> blocks_;
  at::Tensor final_norm_weight_C_;
  at::Tensor final_norm_bias_C_;
  at::Tensor head_VC_;
};
TORCH_MODULE(Transformer);

// Sets every parameter of the model from RandomStream(seed, parameter name): matrices and
// embeddings normal with deviation 0.02, the projections back into the residual stream (attn.out,
// mlp.down) 0.02 / sqrt(2 layers) (Radford et al. 2019, 2.3), norm weights 1, biases 0. Any dtype:
// the f32 value is rounded. Runs on at::get_num_threads() threads; the result does not depend on
// them.
void initialize(TransformerImpl& model, std::uint64_t seed);

}  // namespace trireme::nn
