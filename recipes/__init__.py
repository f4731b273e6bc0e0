"""How the demo models are trained: one recipe per model, on scenes and texts of other seeds than the demo's."""
