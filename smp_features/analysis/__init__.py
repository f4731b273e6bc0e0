"""What people look at: figures, the cleaning rules behind them, and the HTML report."""
