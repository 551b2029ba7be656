// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// safetensors: the file format of weights. A JSON header with names, dtypes, shapes and offsets,
// then the bytes. Source: the format description of the safetensors project
// (huggingface/safetensors README, "Format").
//
//   SafetensorsWriter writer("model.safetensors");
//   writer.add("wte.weight", DType::kF32, {vocab, width}, data);  // declared first, ...
//   writer.write({{"format", "pt"}});                             // ... written in one pass
//
//   const SafetensorsFile file("model.safetensors");              // memory-mapped, fully checked
//   const TensorView& weights = file.at("wte.weight");
//
// Strict where the format's description is: no holes, no overlaps, no name twice, nothing unknown.
// The format has no digest of its own; checkpoint.h adds one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "trireme/base/dtype.h"

namespace trireme {

// A tensor inside a file or about to be written, row-major, little endian; the memory is not owned.
// Scalars have an empty shape. In a file that Trireme wrote, bytes start at a multiple of the
// element size; in files of others they may not, so copy them out rather than cast the pointer.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

class SafetensorsWriter {
 public:
  // path must not exist. Nothing is created before write().
  explicit SafetensorsWriter(std::string path);
  // data must stay valid until write(). Throws ConfigError on a repeated or reserved name,
  // ShapeError when bytes and shape differ.
  void add(const std::string& name, DType dtype, std::vector<std::int64_t> shape,
           std::span<const std::byte> data);
  // Writes and fsyncs the file; returns the xxh3-64 of its bytes as 16 hex digits, computed on the
  // way. Tensors lie in the order of add(), those with wider elements first. Throws CheckpointError
  // with the system's reason (no space, no permission, path exists); a partial file is removed.
  // Throws ConfigError when a name or a piece of metadata is not UTF-8.
  std::string write(const std::map<std::string, std::string>& metadata);

 private:
  struct Entry {
    std::string name;
    TensorView view;
  };
  std::string path_;
  std::vector<Entry> entries_;
  std::set<std::string> names_;
};

// A file in memory. Constant after construction; any thread may read. The file must not be
// shortened by others meanwhile (files of a committed checkpoint never are; removing them does no
// harm).
class SafetensorsFile {
 public:
  // Throws CheckpointError: missing, not safetensors, truncated, offsets that overlap, leave holes
  // or leave the file, a dtype that Trireme does not hold, a header above 100 MB. Nothing is
  // allocated on the word of the file before it was checked.
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::map<std::string, TensorView>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  // Throws CheckpointError when there is no such tensor, naming the file.
  const TensorView& at(const std::string& name) const;
  // xxh3-64 of the file's bytes as 16 hex digits. Reads the whole file.
  std::string digest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
