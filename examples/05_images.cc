// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A small residual net that tells the letters A to J, drawn in every font of this machine; or
// handwritten digits, or photographs, where the files are at hand.
// Run alone:           ./05_images [--mnist FOLDER | --cifar FOLDER]
// Run on two ranks:    torchrun --no-python --nproc-per-node 2 ./05_images
// Prints, on rank 0:   step 100  loss 0.487
//                      ...
//                      accuracy on images held out: 0.93, of fonts never seen

#include <torch/nn.h>
#include <torch/optim.h>

#include <cstdio>
#include <span>

#include "examples/support/glyphs.h"
#include "examples/support/image_files.h"
#include "examples/support/rank_share.h"
#include "trireme/base/error.h"
#include "trireme/launch/init.h"
#include "trireme/parallel/data/replica.h"

namespace nn = torch::nn;
using namespace trireme::examples;
constexpr std::int64_t kSteps = 300, kBatch = 64;  // over all ranks

nn::Conv2d conv(std::int64_t in, std::int64_t out, int size, int stride) {
  return nn::Conv2d(nn::Conv2dOptions(in, out, size).stride(stride).padding(size / 2).bias(false));
}

// Two convolutions beside a shortcut, at half the resolution.
struct BlockImpl : nn::Module {
  BlockImpl(std::int64_t in, std::int64_t out)
      : first(conv(in, out, 3, 2)),
        second(conv(out, out, 3, 1)),
        shortcut(conv(in, out, 1, 2)),
        first_norm(nn::GroupNormOptions(8, out)),
        second_norm(nn::GroupNormOptions(8, out)) {
    register_module("first", first), register_module("second", second);
    register_module("shortcut", shortcut), register_module("first_norm", first_norm);
    register_module("second_norm", second_norm);
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const auto y = second_norm(second(torch::relu(first_norm(first(x)))));
    return torch::relu(y + shortcut(x));
  }
  nn::Conv2d first, second, shortcut;
  nn::GroupNorm first_norm, second_norm;
};
TORCH_MODULE(Block);
nn::Sequential make_net(std::int64_t channels) {
  return nn::Sequential(conv(channels, 16, 3, 1), nn::ReLU(), Block(16, 32), Block(32, 64),
                        Block(64, 128), nn::AdaptiveAvgPool2d(1), nn::Flatten(),
                        nn::Linear(128, kNumImageClasses));
}

torch::Tensor pixels(const LabelledImages& from, const torch::Tensor& numbers) {
  return from.images.index_select(0, numbers).to(torch::kFloat).div(127.5).sub(1);
}
// Share of the images that net names right; all ranks take part.
float accuracy(nn::Sequential& net, const LabelledImages& images, trireme::Group& world) {
  const torch::NoGradGuard no_gradients;
  const auto [begin, end] = share_of(images.labels.size(0), world);
  const auto numbers = torch::arange(begin, end);
  const auto guess = net->forward(pixels(images, numbers)).argmax(1);
  auto right = guess.eq(images.labels.index_select(0, numbers)).sum().item<float>();
  world.all_reduce(trireme::buffer_of(std::span(&right, 1)));
  return right / static_cast<float>(images.labels.size(0));
}

int main(int argc, char** argv) try {
  share_cores();
  torch::manual_seed(1);
  const auto world = trireme::init();
  const ImageSplits images = argc == 1 ? draw_glyphs({}) : read_images({argv + 1, argv + argc});
  auto net = make_net(images.train.images.size(1));
  auto replica = trireme::replicate(*net, *world);
  torch::optim::AdamW optimizer(net->parameters(), torch::optim::AdamWOptions(2e-3));
  const SampleShares shares(images.train.labels.size(0), kBatch, *world, 1);

  for (std::int64_t step = 1; step <= kSteps; ++step) {
    const auto numbers = shares.of_step(step);
    const auto labels = images.train.labels.index_select(0, numbers);
    optimizer.zero_grad();
    const auto guess = net->forward(pixels(images.train, numbers));
    const auto loss = nn::functional::cross_entropy(guess, labels);
    replica.backward(loss, static_cast<double>(numbers.size(0)));
    replica.finish_gradients();
    optimizer.step();
    if (step % 100 == 0 && world->rank() == 0)
      std::printf("step %ld  loss %.3f\n", step, loss.item<float>());
  }
  const float score = accuracy(net, images.held_out, *world);
  if (world->rank() == 0) std::printf("accuracy on images held out: %.3f\n", score);
  world->close();
} catch (const trireme::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 2;
}
