"""The names of Keras's own layers, to tell them from custom ones in files that state no module."""

import re

# The public classes of keras.layers in Keras 3.15, and those of Keras 1 and 2 that it lacks.
KERAS_LAYERS = frozenset(
    re.findall(
        r"\w+",
        """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix
    AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional
    CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D
    Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D CutMix
    Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten
    FlaxLayer GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization
    GroupQueryAttention HashedCrossing Hashing Identity InputLayer IntegerLookup JaxLayer LSTM LSTMCell Lambda
    LayerNormalization LeakyReLU Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D MaxPooling3D Maximum
    MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline RMSNormalization RNN
    RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation
    RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram SeparableConv1D
    SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells StringLookup Subtract TFSMLayer TextVectorization TimeDistributed
    TorchModuleWrapper UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
    ZeroPadding3D
    Highway LocallyConnected1D LocallyConnected2D MaxoutDense ParametricSoftplus SReLU SlicingOpLambda
    TFOpLambda ThresholdedReLU
        """,
    )
)

# Classes that hold a graph of layers, under the names that files of all ages give them.
MODEL_CLASSES = {"Sequential": "Sequential", "Model": "Functional", "Functional": "Functional", "Network": "Functional"}

# Layers that stand for a program in another framework.
FOREIGN = {
    "FlaxLayer": "code of Flax",
    "JaxLayer": "code of JAX",
    "TFSMLayer": "a SavedModel of TensorFlow",
    "TorchModuleWrapper": "code of PyTorch",
}

_ALIASES = {
    "CuDNNGRU": "GRU",
    "CuDNNLSTM": "LSTM",
    "SyncBatchNormalization": "BatchNormalization",
    "UnifiedGRU": "GRU",
    "UnifiedLSTM": "LSTM",
}
_SPELLINGS = (
    (r"Convolution", "Conv"),
    (r"MaxPool(\dD)", r"MaxPooling\1"),
    (r"AvgPool(\dD)", r"AveragePooling\1"),
    (r"V[12]$", ""),
)


def canonical_class(name: str) -> str:
    """Keras's present name of a layer: ``"MaxPool2D"`` -> ``"MaxPooling2D"``, ``"LSTMV2"`` -> ``"LSTM"``."""
    if name in KERAS_LAYERS:
        return name
    if name in _ALIASES:
        return _ALIASES[name]
    for pattern, replacement in _SPELLINGS:
        changed = re.sub(pattern, replacement, name)
        if changed in KERAS_LAYERS:
            return changed
    return name
