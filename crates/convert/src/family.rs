//! What a family of models is to the importer: a row of data. The rows stand in `families`, the
//! tensors of their layers in `tensors`.

/// A family: how its Hugging Face folders become GGUF files.
#[derive(Debug)]
pub(crate) struct Family {
    /// The names in `architectures` of config.json.
    pub(crate) hugging_face: &'static [&'static str],
    /// The name in `general.architecture`.
    pub(crate) gguf: &'static str,
    /// What transformers fills in where config.json has no such entry.
    pub(crate) defaults: &'static [&'static [(&'static str, Default)]],
    /// Functions between the two halves of the feed-forward part that the GGUF family stands for.
    pub(crate) activations: &'static [&'static str],
    /// Kinds of `rope_type` that the GGUF family can express.
    pub(crate) ropes: &'static [&'static str],
    /// Which layers see only a window.
    pub(crate) windows: Windows,
    /// What the layers are made of.
    pub(crate) layers: Layers,
    pub(crate) tensors: &'static [&'static [Tensor]],
    /// Starts of tensor names that are left out: parts that only serve training.
    pub(crate) skip: &'static [&'static str],
    /// Keys of their own, after the common ones.
    pub(crate) keys: &'static [Key],
    /// Common keys that llama.cpp's converter does not write for the family.
    pub(crate) without: &'static [&'static str],
}

/// What transformers fills in for an entry that config.json leaves out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Default {
    U32(u32),
    F32(f32),
    /// The same as `num_attention_heads`.
    Heads,
    /// `hidden_size` / `num_attention_heads`.
    HiddenPerHead,
}

/// Which layers see only a window of the tokens before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Windows {
    /// None of them; a folder whose layers ask for one is refused.
    None,
    /// None of them; a folder with a `sliding_window` is refused, since every layer would have it.
    Refused,
    /// All of them where `sliding_window` is set.
    All,
    /// Every n-th sees everything, counted from 1: the last of a group of n.
    Every(u32),
    /// Every n-th sees everything, counted from 0: the first of a group of n.
    EveryFromFirst(u32),
    /// As the file lists them.
    Listed,
}

/// What the layers of a family are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layers {
    /// Attention, all alike.
    Attention,
    /// Attention, or a short convolution (LFM2).
    ShortConvolution,
    /// Attention, or a gated delta rule (Qwen 3.5).
    DeltaRule,
    /// Attention with other heads in the layers that see everything; the last layers share keys and
    /// values (Gemma 4).
    PerLayer,
}

/// A key of a family, beyond the common ones. Names without the family's prefix.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    /// A whole number that config.json must have.
    U32(&'static str, &'static [&'static str]),
    /// A number that config.json must have.
    F32(&'static str, &'static [&'static str]),
    /// A number, written where config.json has it.
    OptionalF32(&'static str, &'static [&'static str]),
    /// A text, written where config.json has it.
    OptionalText(&'static str, &'static [&'static str]),
    /// Always the same.
    Bool(&'static str, bool),
    /// Always the same.
    Text(&'static str, &'static str),
    /// `rope.dimension_count`: this part of the head width (where the file names no part itself).
    RopeDimensions(f32),
    /// `attention.sliding_window`, where one is set.
    SlidingWindow,
    /// `attention.sliding_window`: 0 where none is set (llama.cpp tells Phi 4 from Phi 3 by it).
    SlidingWindowOrZero,
    /// `attention.sliding_window_pattern` as a number, where it is not the family's own.
    WindowPeriod,
    /// `attention.sliding_window_pattern`, one truth value a layer.
    WindowPerLayer,
    /// `attention.scale`, where queries are scaled by something else than their head's width.
    QueryScale,
    /// `pooling_type` and `classifier.*`, from the sentence-transformers modules or the head.
    Pooling,
    /// `dense_2_feat_in` and so on, from the sentence-transformers modules.
    Dense,
    /// `rope.scaling.attn_factor` and `rope.scaling.original_context_length` of LongRoPE.
    LongRope,
    /// Scale and temperature that go with YaRN in Ministral 3.
    Temperature,
    /// `ssm.*` of the gated delta rule.
    DeltaRule,
    /// Head widths, head counts and feed-forward widths that differ between layers.
    PerLayer,
}

/// A tensor of a family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tensor {
    /// Its name in the folder, without prefix, `{}` for the layer, without `.weight` unless `exact`.
    pub(crate) from: &'static str,
    /// Its name in GGUF, likewise.
    pub(crate) to: &'static str,
    /// Its shape in the folder (the last length is contiguous).
    pub(crate) shape: &'static [Length],
    pub(crate) change: Change,
    pub(crate) place: Place,
    pub(crate) bias: Bias,
    /// Whether a folder without it is refused.
    pub(crate) required: bool,
    /// The names are complete: nothing like `.weight` follows.
    pub(crate) exact: bool,
}

/// Whether a bias goes with a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    Never,
    Possible,
    Required,
}

/// Which layers have a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Every,
    /// Layers with attention.
    Attention,
    /// Layers with attention and keys of their own (the others may have them, unused).
    OwnKeys,
    /// Layers with a convolution or a delta rule.
    Recurrent,
    /// All but the first, which may have it.
    NotFirst,
}

/// A length in a shape, by what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    One,
    Vocabulary,
    Hidden,
    HeadWidth,
    /// Heads x head width.
    Query,
    /// Twice that: queries and their gates.
    QueryAndGate,
    /// Key-value heads x head width.
    Key,
    QueryKeyValue,
    FeedForward,
    TwiceFeedForward,
    Positions,
    TokenTypes,
    Labels,
    /// Width of the per-layer embedding of one layer, and of all.
    PerLayer,
    AllPerLayer,
    PerLayerVocabulary,
    /// Three times the hidden width (the gates of a short convolution).
    ThreeHidden,
    /// Taps of a convolution.
    Taps,
    /// Queries, keys and values of the delta rule.
    DeltaQueryKeyValue,
    /// Values of the delta rule, and how they are divided.
    DeltaValue,
    DeltaHeads,
    DeltaHeadWidth,
}

/// How the numbers change on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Keep,
    /// transformers multiplies with 1 + weight.
    AddOne,
    /// Rows of each query head from two halves to pairs: llama.cpp rotates neighbours.
    PairQueryRows,
    /// Likewise for key heads.
    PairKeyRows,
    /// Rows beyond the number of tokens are left out.
    CutToVocabulary,
    /// Positions start after the padding token's number.
    SkipPaddingRows,
    /// -exp(x), value heads reordered.
    DecayOfValueHeads,
    /// Rows of value heads from grouped by key head to one of each group in turn: ggml repeats the
    /// key heads as a whole.
    ReorderValueHeads,
    /// Likewise where each head has several rows.
    ReorderValueRows,
    /// Likewise for the rows after those of queries and keys.
    ReorderValueRowsAfterKeys,
    /// Likewise for columns.
    ReorderValueColumns,
}

impl Tensor {
    pub(crate) const fn new(
        from: &'static str,
        to: &'static str,
        shape: &'static [Length],
    ) -> Self {
        Self {
            from,
            to,
            shape,
            change: Change::Keep,
            place: Place::Every,
            bias: Bias::Never,
            required: true,
            exact: false,
        }
    }

    pub(crate) const fn change(mut self, change: Change) -> Self {
        self.change = change;
        self
    }

    pub(crate) const fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    pub(crate) const fn bias(mut self, bias: Bias) -> Self {
        self.bias = bias;
        self
    }

    pub(crate) const fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    pub(crate) const fn exact(mut self) -> Self {
        self.exact = true;
        self
    }
}

impl Family {
    /// Its tensors, from the table.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &'static Tensor> {
        self.tensors.iter().copied().flatten()
    }

    /// Whether it scores pairs of texts: it has a classification head.
    pub(crate) fn scores(&self) -> bool {
        self.tensors().any(|tensor| tensor.to == "cls.output")
    }

    /// Whether its position embedding starts with rows for the padding token.
    pub(crate) fn skips_padding(&self) -> bool {
        let mut tensors = self.tensors();
        tensors.any(|tensor| tensor.change == Change::SkipPaddingRows)
    }
}
